// new and delete as C++ libraries use them.
#include <cstddef>
#include <vector>

static std::vector<std::vector<char> *> held;

extern "C" void cpp_hold(long nr, size_t size)
{
	for (long i = 0; i < nr; i++)
		held.push_back(new std::vector<char>(size, 'x'));
}

extern "C" void cpp_let_go()
{
	for (auto *vector : held)
		delete vector;
	held.clear();
	held.shrink_to_fit();
}

struct alignas(128) wide {
	char bytes[1024];
};

extern "C" void *cpp_wide()
{
	return new wide;
}

extern "C" void cpp_wide_free(void *p)
{
	delete static_cast<wide *>(p);
}
