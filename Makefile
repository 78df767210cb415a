# objcg: set-up, tests and checks.  `make help` lists what there is.
#
#   PYTHON=...   the interpreter of .venv (default: the newest CPython 3.10-3.13 found)
#   CC=...       the C compiler
#   WERROR=true  compiler warnings are errors, as in CI
#   ARGS=...     further arguments for pytest, the demo or the benchmark
#   ON=3.11      one version for `make results`, which measures on 3.13 (.venv) and 3.11
#
# Nothing is installed outside this folder: tools come from PyPI into .venv, and everything built
# goes to build/ and the .venv folders.  What is up to date is not done again.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

V := .venv
ARGS ?=
ON ?= 3.13 3.11
WERROR ?= false
SECONDS ?= 600
STRESS_SECONDS ?= 10
MINORS := 3.13 3.12 3.11 3.10
GUARDED := 3.13 3.11
SANITIZERS := plain asan tsan

ifneq ($(origin CC),default)
export CC
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH PYTHONHOME

.PHONY: help
help: ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

# --- to use it ----------------------------------------------------------------------------------

.PHONY: demo bench results documents
demo: $V/.objcg ## Install into .venv and run the example
	$V/bin/python examples/tenants.py $(ARGS)

bench: $V/.objcg ## Measure allocation against stock CPython
	$V/bin/objcg bench alloc $(ARGS)

measured = $(foreach minor,$(ON),$(if $(filter 3.13,$(minor)),$V,$V-$(minor)))
results: $V/.objcg $V/.bench $(measured:%=%/.objcg) $(measured:%=%/.suite) ## Measure for docs/benchmarks.md: hours, or ON=3.11 ARGS="switch --rounds 3"
	@status=0; \
	$V/bin/python docs/measure.py $(measured:%=--python %/bin/python) $(ARGS) || status=$$?; \
	$V/bin/python docs/benchmarks.py || status=$$?; \
	exit $$status

documents: $V/.objcg $V/.bench ## docs/benchmarks.md and its pictures from docs/benchmarks/*.json
	$V/bin/python docs/benchmarks.py

# --- to test it ---------------------------------------------------------------------------------

.PHONY: test test-all pytest ctest regtest model mutants faults check
test: ctest pytest ## C tests (plain, asan, tsan) and Python tests

pytest: $V/.objcg $V/.test ## Python tests in .venv
	$V/bin/python -m pytest $(ARGS)

# The versions of CPython that are found, without $(1), if that is one.
found = $$(.ci/pythons | cut -d' ' -f1 | { grep -vxF -e '$(1)' || true; })

# Makes the target $(1)-NAME for each name in $(2), AT_ONCE of them at a time, whatever becomes of the
# others; what several print at once comes when each ends.
AT_ONCE ?= 1
define for_each
@names="$(2)"; \
$(MAKE) --no-print-directory --keep-going --jobs=$(AT_ONCE) --output-sync=target \
	$$(printf '$(1)-%s ' $$names); \
echo "$@ passed:" $$names
endef

# WITHOUT=3.13 leaves one out, such as that of .venv.
test-all: ## Python tests on every CPython 3.10-3.13 found, AT_ONCE=1 of them at a time
	$(call for_each,test,$(call found,$(WITHOUT)))

.PHONY: $(MINORS:%=test-%)
$(MINORS:%=test-%): test-%: $V-%/.objcg $V-%/.test
	$V-$*/bin/python -m pytest $(ARGS)

ctest: $(SANITIZERS:%=ctest-%) ## C tests: plain, then under the address, undefined and thread sanitizers

model: $V/.made ## The protocols' models, checked by Spin (Debian's package, installed if root)
	$V/bin/python models/run.py $(ARGS)

mutants: $V/.made ## Mistakes planted in the core, each of which the explorer must find
	$V/bin/python tests/explore/mutants.py $(ARGS)

faults: $V/.objcg ## Programs with each of their allocations failing once, and from then on; half an hour
	$V/bin/python tests/faults/sweep.py $(ARGS)

# The newest CPython found, where none of GUARDED is.
guarded = $$(found="$(call found)"; \
	grep -xF $(GUARDED:%=-e %) <<<"$$found" || head -n 1 <<<"$$found")

.PHONY: guard guard-record $(MINORS:%=guard-%) $(MINORS:%=guard-record-%)
guard: ## Instructions against those recorded (valgrind, installed if root)
	$(call for_each,$@,$(guarded))

guard-record: ## Record them anew
	$(call for_each,$@,$(guarded))

$(MINORS:%=guard-%): guard-%: $V-%/.objcg
	$V-$*/bin/python tests/guard/guard.py

$(MINORS:%=guard-record-%): guard-record-%: $V-%/.objcg
	$V-$*/bin/python tests/guard/guard.py --record

regtest: $(SANITIZERS:%=stress-%) explore-more ## Stress, SECONDS=600 in each build; more schedules

# In environments of their own, so that nobody measures with the slow build by mistake.
.PHONY: coverage coverage-measured
coverage: ## What no test reaches: lines and branches of C, lines of Python, in build/coverage
	$(MAKE) V=.venv-coverage coverage-measured

coverage-measured: setup_arguments = $(sanitize_coverage)
coverage-measured: $V/.objcg $V/.test $V/.libraries $V/.coverage build/c-coverage/.listed
	rm -rf build/coverage && mkdir -p build/coverage
	find build/c-coverage $V/build -name '*.gcda' -delete
	# not the explorer: it runs the core on fibers, which gcov does not know
	PATH="$(CURDIR)/$V/bin:$$PATH" $V/bin/meson test -C build/c-coverage --print-errorlogs \
		$(basename $(notdir $(wildcard tests/core/test_*.c)))
	COVERAGE_CORE=sysmon $V/bin/python -m coverage run -m pytest $(ARGS) || echo "tests failed: see above" >&2
	$V/bin/python -m coverage combine -q
	$V/bin/python -m coverage report --skip-covered --show-missing >build/coverage/python.txt
	$V/bin/gcovr --root . --filter src/ --exclude-throw-branches --merge-mode-functions separate \
		--gcov-ignore-parse-errors=suspicious_hits.warn_once_per_file \
		--json build/coverage/c.json \
		--txt-summary build/c-coverage $V/build
	@for part in core binding; do \
		echo "src/$$part:"; \
		$V/bin/gcovr --root . --filter "src/$$part/" \
			--add-tracefile build/coverage/c.json --txt build/coverage/$$part.txt --txt-metric branch \
			--print-summary; \
	done
	@tail -1 build/coverage/python.txt; echo "build/coverage: c.json, core.txt, binding.txt, python.txt"

.PHONY: soak
soak: $V/.objcg ## The service with everything changing at random, for SECONDS=600
	$V/bin/python tests/soak/soak.py --seconds $(SECONDS) $(ARGS)

.PHONY: downstream downstream-slice downstream-libraries $(MINORS:%=downstream-%)
downstream: ## Suites of CPython and of libraries, under objcg beside without: many hours
	$(call for_each,$@,$(call found) libraries)

$(MINORS:%=downstream-%): downstream-%: $V-%/.objcg
	$V-$*/bin/python tests/downstream cpython --json docs/reliability $(ARGS)

downstream-libraries: $V/.objcg $V/.downstream
	$V/bin/python tests/downstream numpy scipy pandas sympy networkx --json docs/reliability $(ARGS)

downstream-slice: $V/.objcg $V/.test $V/.libraries ## A part of it: minutes
	$V/bin/python tests/downstream --slice

.PHONY: explore-more
explore-more: build/c-plain/.listed
	PATH="$(CURDIR)/$V/bin:$$PATH" $V/bin/meson compile -C build/c-plain explore
	build/c-plain/tests/explore/explore --extra 1

check: STRESS = $(STRESS_SECONDS)
check: lint test $(SANITIZERS:%=stress-%) ## lint, test and a short stress

# ThreadSanitizer of older compilers does not start where addresses are randomised by more bits than
# it expects; setarch -R turns that off, where the machine lets it.
fixed_addresses = $$(setarch -R true 2>/dev/null && echo setarch -R || echo env)

.PHONY: $(SANITIZERS:%=ctest-%) $(SANITIZERS:%=stress-%)
$(SANITIZERS:%=ctest-%): ctest-%: build/c-%/.listed
	PATH="$(CURDIR)/$V/bin:$$PATH" $(fixed_addresses) \
		$V/bin/meson test -C build/c-$* --suite check --print-errorlogs

STRESS = $(SECONDS)
$(SANITIZERS:%=stress-%): stress-%: build/c-%/.listed
	PATH="$(CURDIR)/$V/bin:$$PATH" $V/bin/meson compile -C build/c-$* stress
	TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		$(fixed_addresses) build/c-$*/tests/core/stress $(STRESS)

# --- to keep it tidy ----------------------------------------------------------------------------

c_files = $(shell find src tests lab -name '*.[ch]' 2>/dev/null)

.PHONY: lint format clean
lint: source-lists $V/.lint ## ruff, mypy --strict, clang-format, source lists
	$V/bin/ruff check .
	$V/bin/ruff format --check .
	$V/bin/mypy
	$V/bin/clang-format --dry-run -Werror $(c_files)

format: $V/.lint ## Let ruff and clang-format rewrite the sources
	$V/bin/ruff check --fix-only .
	$V/bin/ruff format .
	$V/bin/clang-format -i $(c_files)

clean: ## Remove all that was built or installed here
	rm -rf build dist $V $(MINORS:%=$V-%) .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# --- set-up -------------------------------------------------------------------------------------
#
# Each virtual environment has a stamp per thing done in it: .made, .build (tools that build),
# .test, .bench, .lint, .objcg (the project itself).  A stamp holds what it depends on that has no
# time of its own, such as a list of requirements, and is only rewritten when that changed.

.PHONY: FORCE
FORCE:
.PRECIOUS: %/.made $V-%/.made %/.build %/.test %/.libraries %/.downstream %/.coverage %/.lint %/.bench %/.suite %/.objcg build/c-%/.configured build/c-%/.listed

# $(call update,FILE,COMMAND): the output of COMMAND becomes FILE, if it differs.
update = mkdir -p $(dir $1); { $2; } >$1.new; \
	if cmp -s $1.new $1; then rm $1.new; else mv $1.new $1; fi

# Prints the requirements named in pyproject.toml under [build-system] or an extra.
define requirements_py
import sys
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
for name in sys.argv[1:]:
    extras = project["project"]["optional-dependencies"]
    print(*(project["build-system"]["requires"] if name == "build-system" else extras[name]), sep="\n")
endef
export requirements_py

# $(call install,VENV,STAMP,EXTRAS): pip-installs the requirements of EXTRAS, if they changed.
install = $1/bin/python -c "$$requirements_py" $3 >$2.new; \
	if cmp -s $2.new $2; then touch $2; else \
		echo "$1: installing $$(tr '\n' ' ' <$2.new)"; \
		$1/bin/python -m pip install -q -r $2.new; mv $2.new $2; fi; rm -f $2.new

ifeq ($(wildcard $V/bin/python),)
$V/.made: FORCE
else ifdef PYTHON
ifneq ($(shell cat $V/.made 2>/dev/null),$(shell .ci/pythons '$(PYTHON)' 2>/dev/null))
$V/.made: FORCE
endif
endif

$V/.made:
	@python=$$(.ci/pythons "$${PYTHON:-newest}"); \
	echo "$V: made with $$python"; rm -rf $V; "$$python" -m venv $V; echo "$$python" >$@

$V-%/.made:
	@python=$$(.ci/pythons $*); \
	echo "$V-$*: made with $$python"; rm -rf $V-$*; "$$python" -m venv $V-$*; echo "$$python" >$@

%/.build: %/.made pyproject.toml
	@$(call install,$*,$@,build-system build)

%/.test: %/.made pyproject.toml
	@$(call install,$*,$@,test)

%/.libraries: %/.made pyproject.toml
	@$(call install,$*,$@,libraries)

%/.downstream: %/.made pyproject.toml
	@$(call install,$*,$@,downstream)

%/.coverage: %/.made pyproject.toml
	@$(call install,$*,$@,coverage)

%/.bench: %/.made pyproject.toml
	@$(call install,$*,$@,bench peers)

# What pyperformance's benchmarks need; one that cannot be had is listed by the result.
%/.suite: %/.bench
	@for list in $*/lib/python3*/site-packages/pyperformance/data-files/benchmarks/*/requirements.txt; do \
		$*/bin/python -m pip install -q -r "$$list" >/dev/null 2>&1 || \
			echo "$*: cannot install what $$(basename "$$(dirname "$$list")") needs"; \
	done; touch $@

%/.lint: %/.made pyproject.toml
	@$(call install,$*,$@,lint)

build_files := pyproject.toml meson.build meson.options README.md LICENSE
sources := $(shell find src lab -type f -not -path '*/__pycache__/*' 2>/dev/null)

# What was there at the last build: a file that appears or goes away must lead to a new one.
build/sources: FORCE
	@$(call update,$@,find src lab -type f -not -path '*/__pycache__/*' | sort)

.PHONY: source-lists
source-lists:
	@for file in $(wildcard src/core/*.c src/binding/*.c); do \
		grep -q "'$${file##*/}'" "$${file%/*}/meson.build" || \
			{ echo "objcg: $$file is missing from $${file%/*}/meson.build" >&2; exit 1; }; \
	done

build/configuration: FORCE
	@if [ -n "$${CC-}" ]; then set -- "$$CC"; else set -- cc gcc clang; fi; \
	for cc; do if command -v $${cc%% *} >/dev/null; then found=$$cc; break; fi; done; \
	[ -n "$${found-}" ] || \
		{ echo "objcg: found no C compiler ($$*); install gcc or clang, or set CC" >&2; exit 1; }; \
	$(call update,$@,echo "CC=$$found WERROR=$(WERROR)")

%/.objcg: build/configuration %/.build build/sources $(build_files) $(sources) | source-lists
	@echo "$*: building and installing objcg"
	@[ $*/build -nt build/configuration ] || rm -rf $*/build
	@PATH="$(CURDIR)/$*/bin:$$PATH" $*/bin/python -m pip install -q --no-build-isolation \
		--no-deps --force-reinstall --config-settings=build-dir=$*/build \
		--config-settings=setup-args=-Dwerror=$(WERROR) \
		$(foreach argument,$(setup_arguments),--config-settings=setup-args=$(argument)) \
		--config-settings=setup-args=-Dlab=$(if $(filter $V $V-3.11,$*),true,false) .
	@touch $@

sanitize_plain := -Dbuildtype=debugoptimized
sanitize_asan := -Dbuildtype=debug -Doptimization=1 -Db_sanitize=address,undefined
sanitize_coverage := -Dbuildtype=debug -Db_coverage=true -Dc_args=-fprofile-update=atomic
sanitize_tsan := -Dbuildtype=debug -Doptimization=1 -Db_sanitize=thread

build/c-%/.configured: build/configuration $V/.build Makefile meson.options | source-lists
	@rm -rf build/c-$*
	PATH="$(CURDIR)/$V/bin:$$PATH" $V/bin/meson setup build/c-$* \
		-Dpython=false -Dtests=true -Dwerror=$(WERROR) $(sanitize_$*) >/dev/null
	@touch $@

# meson looks for the programs of tests/core when it is configured, so a new one must cause that.
build/programs: FORCE
	@$(call update,$@,ls tests/core/*.c)

build/c-%/.listed: build/c-%/.configured build/programs
	@PATH="$(CURDIR)/$V/bin:$$PATH" $V/bin/meson setup --reconfigure build/c-$* >/dev/null
	@touch $@
