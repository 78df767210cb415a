from __future__ import annotations

import pytest
from unit.cgroup_trees import MIB, V1_UNLIMITED, Tree

V2 = "/ /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_OTHERS = "12:cpu,cpuacct:/docker/c1\n11:name=systemd:/docker/c1\n"


def v1_mount(root="/", point="/sys/fs/cgroup/memory"):
    return f"{root} {point} ro,nosuid master:17 - cgroup cgroup rw,memory"


# ---- cgroup v2 -----------------------------------------------------------------------------------
def test_docker_on_v2_in_a_namespace_of_its_own(tmp_path):
    tree = Tree(tmp_path, "0::/\n", V2)
    tree.v2("/sys/fs/cgroup", 512 * MIB, 100 * MIB, active_file=10 * MIB, inactive_file=20 * MIB)
    assert tree.nearest() == (512 * MIB, 70 * MIB, "/sys/fs/cgroup/memory.max")


def test_docker_on_v2_in_the_hosts_namespace(tmp_path):
    scope = "/system.slice/docker-c1.scope"
    tree = Tree(tmp_path, f"0::{scope}\n", f"{scope} /sys/fs/cgroup ro - cgroup2 cgroup rw")
    tree.v2("/sys/fs/cgroup", 512 * MIB, MIB)
    assert tree.nearest() == (512 * MIB, MIB, "/sys/fs/cgroup/memory.max")


def test_systemd_nests_and_the_nearest_limit_counts_not_the_smallest(tmp_path):
    tree = Tree(tmp_path, "0::/work.slice/work-jobs.slice/job.service\n", V2)
    top = "/sys/fs/cgroup/work.slice"
    tree.v2(f"{top}/work-jobs.slice/job.service", 1024 * MIB, 100 * MIB)
    tree.v2(f"{top}/work-jobs.slice", "max", 3000 * MIB)
    tree.v2(top, 4096 * MIB, 3900 * MIB)
    # the root of all has no such files
    assert tree.nearest() == (4096 * MIB, 3900 * MIB, "/sys/fs/cgroup/work.slice/memory.max")
    assert [limit.limit for limit in tree.cgroups().limits()] == [1024 * MIB, 4096 * MIB]
    tree.v2(top, 4096 * MIB, 200 * MIB)
    assert tree.nearest()[0] == 1024 * MIB


def test_max_is_no_limit(tmp_path):
    tree = Tree(tmp_path, "0::/user.slice/session-1.scope\n", V2)
    tree.v2("/sys/fs/cgroup/user.slice/session-1.scope", "max", MIB)
    tree.v2("/sys/fs/cgroup/user.slice", "max", MIB)
    assert tree.nearest() is None


def test_a_limit_of_0_is_one(tmp_path):
    tree = Tree(tmp_path, "0::/\n", V2)
    tree.v2("/sys/fs/cgroup", 0, MIB)
    assert tree.nearest() == (0, MIB, "/sys/fs/cgroup/memory.max")
    assert tree.cgroups().nearest().free == 0


def test_a_level_without_the_controller_is_skipped(tmp_path):
    tree = Tree(tmp_path, "0::/a/b\n", V2)
    (tmp_path / "sys/fs/cgroup/a/b").mkdir(parents=True)
    tree.v2("/sys/fs/cgroup/a", 64 * MIB)
    assert tree.nearest()[0] == 64 * MIB


def test_a_mount_that_begins_above_the_namespace(tmp_path):
    """The mount point is a cgroup above ours; where ours is below it, its name is not known."""
    tree = Tree(tmp_path, "0::/\n", "/.. /sys/fs/cgroup ro - cgroup2 cgroup rw")
    tree.v2("/sys/fs/cgroup", 256 * MIB)
    assert tree.nearest()[0] == 256 * MIB


def test_a_process_outside_of_the_namespace_has_no_limit_that_is_visible(tmp_path):
    tree = Tree(tmp_path, "0::/../other\n", V2)
    tree.v2("/sys/fs/cgroup", 256 * MIB)
    assert tree.nearest() is None


def test_the_mount_of_another_cgroup_is_not_ours(tmp_path):
    other = "/a/sibling /mnt/sibling rw - cgroup2 cgroup rw"
    prefix = "/a/ours-too /mnt/prefix rw - cgroup2 cgroup rw"
    tree = Tree(tmp_path, "0::/a/ours\n", other, prefix)
    tree.v2("/mnt/sibling", MIB)
    tree.v2("/mnt/prefix", MIB)
    assert tree.nearest() is None


def test_names_that_mountinfo_escapes(tmp_path):
    tree = Tree(
        tmp_path,
        "0::/with blank/a:b\n",
        "/with\\040blank /mnt/c\\134d\\040e rw - cgroup2 cgroup rw",
    )
    tree.v2("/mnt/c\\d e/a:b", 128 * MIB)
    assert tree.nearest()[0] == 128 * MIB


def test_cache_that_the_kernel_drops_before_it_kills_is_not_used(tmp_path):
    tree = Tree(tmp_path, "0::/\n", V2)
    tree.v2(
        "/sys/fs/cgroup",
        512 * MIB,
        500 * MIB,
        anon=30 * MIB,
        file=450 * MIB,
        # of the files' pages: tmpfs is on the other lists
        active_file=200 * MIB,
        inactive_file=200 * MIB,
        slab_reclaimable=20 * MIB,
        slab_unreclaimable=10 * MIB,
    )
    assert tree.nearest()[1] == 80 * MIB
    # read one after the other, they need not fit
    tree.v2("/sys/fs/cgroup", 512 * MIB, 10 * MIB, active_file=11 * MIB)
    assert tree.nearest()[1] == 0


# ---- cgroup v1 -----------------------------------------------------------------------------------
def test_docker_on_v1(tmp_path):
    tree = Tree(tmp_path, f"{V1_OTHERS}4:memory:/docker/c1\n", v1_mount("/docker/c1"))
    tree.v1("/sys/fs/cgroup/memory", 300 * MIB, 90 * MIB, total_inactive_file=40 * MIB)
    assert tree.nearest() == (300 * MIB, 50 * MIB, "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def test_a_container_whose_own_path_does_not_exist_in_what_is_mounted(tmp_path):
    tree = Tree(tmp_path, "4:memory:/lxc/c1\n", v1_mount("/"))
    tree.v1("/sys/fs/cgroup/memory", 300 * MIB, 90 * MIB)
    assert tree.nearest()[0] == 300 * MIB


def test_kubernetes_on_v1_has_the_pods_limit_in_the_containers_stat(tmp_path):
    pod = "/kubepods/burstable/pod1/c1"
    tree = Tree(tmp_path, f"9:hugetlb:{pod}\n3:memory:{pod}\n", v1_mount(pod))
    tree.v1("/sys/fs/cgroup/memory", V1_UNLIMITED, 90 * MIB, hierarchical=700 * MIB)
    assert tree.nearest() == (700 * MIB, 90 * MIB, "/sys/fs/cgroup/memory/memory.stat")


@pytest.mark.parametrize("unlimited", [V1_UNLIMITED, 2**63 - 1, 2**63 - 65536])
def test_the_numbers_that_stand_for_unlimited(tmp_path, unlimited):
    tree = Tree(tmp_path, "4:memory:/a/b\n", v1_mount())
    for level in ("/a/b", "/a", ""):
        tree.v1(f"/sys/fs/cgroup/memory{level}", unlimited, MIB)
    assert tree.nearest() is None


def test_v1_nests(tmp_path):
    tree = Tree(tmp_path, "4:memory:/a/b\n", v1_mount())
    tree.v1("/sys/fs/cgroup/memory/a/b", 500 * MIB, 10 * MIB, hierarchical=400 * MIB)
    tree.v1("/sys/fs/cgroup/memory/a", 400 * MIB, 300 * MIB)
    tree.v1("/sys/fs/cgroup/memory", V1_UNLIMITED, 9000 * MIB)
    assert tree.nearest() == (400 * MIB, 300 * MIB, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes")


def test_the_limit_of_a_v1_cgroup_without_use_hierarchy_is_not_for_those_below(tmp_path):
    tree = Tree(tmp_path, "4:memory:/a/b\n", v1_mount())
    tree.v1("/sys/fs/cgroup/memory/a/b", V1_UNLIMITED, 10 * MIB, use_hierarchy=0)
    tree.v1("/sys/fs/cgroup/memory/a", 20 * MIB, MIB, use_hierarchy=0)
    assert tree.nearest() is None
    # its own limit is
    tree.v1("/sys/fs/cgroup/memory/a/b", 30 * MIB, 10 * MIB, use_hierarchy=0)
    assert tree.nearest()[0] == 30 * MIB


# ---- Both ----------------------------------------------------------------------------------------
def test_hybrid_has_the_controller_in_v1(tmp_path):
    tree = Tree(
        tmp_path,
        "4:memory:/job\n1:name=systemd:/job\n0::/job\n",
        "/ /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        v1_mount(),
    )
    (tmp_path / "sys/fs/cgroup/unified/job").mkdir(parents=True)
    tree.v1("/sys/fs/cgroup/memory/job", 64 * MIB, MIB)
    tree.v1("/sys/fs/cgroup/memory", V1_UNLIMITED, MIB)
    assert tree.nearest()[0] == 64 * MIB


def test_hybrid_has_the_controller_in_v2(tmp_path):
    tree = Tree(
        tmp_path, "1:name=systemd:/job\n0::/job\n", "/ /unified rw - cgroup2 cgroup2 rw", v1_mount()
    )
    tree.v2("/unified/job", 64 * MIB, MIB)
    tree.v1("/sys/fs/cgroup/memory/job", 32 * MIB, MIB)
    assert tree.nearest()[0] == 64 * MIB


def test_nothing_at_all_is_no_limit(tmp_path):
    tree = Tree(tmp_path, "0::/\n")
    assert tree.nearest() is None
    (tmp_path / "proc" / "mountinfo").unlink()
    assert tree.nearest() is None
    (tmp_path / "proc" / "cgroup").unlink()
    assert tree.nearest() is None


@pytest.mark.parametrize("text", ["", "\n", "64M\n", "-1\n", "9" * 30, "\0", "٤"])
def test_a_file_with_something_else_is_no_limit(tmp_path, text):
    tree = Tree(tmp_path, "0::/\n", V2)
    tree.v2("/sys/fs/cgroup", 64 * MIB, MIB)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(text, encoding="utf-8")
    assert tree.nearest() is None


@pytest.mark.parametrize("line", ["", "0", "0:", "x::y", "4:memory", "0::relative", ":::"])
def test_damaged_lines_are_skipped(tmp_path, line):
    tree = Tree(tmp_path, f"{line}\n0::/\n", "odd", "- -", "a b - cgroup2", V2)
    tree.v2("/sys/fs/cgroup", 64 * MIB, MIB)
    assert tree.nearest()[0] == 64 * MIB


def test_a_process_that_is_moved_is_found_again(tmp_path):
    tree = Tree(tmp_path, "0::/a\n", V2)
    tree.v2("/sys/fs/cgroup/a", 64 * MIB)
    tree.v2("/sys/fs/cgroup/b", 32 * MIB)
    cgroups = tree.cgroups()
    assert cgroups.nearest().limit == 64 * MIB
    tree.membership("0::/b\n")
    assert cgroups.nearest().limit == 32 * MIB
