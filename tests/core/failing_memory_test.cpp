// Values whose copies run out of memory on the way: they throw, and nothing is broken. Sanitizers have a new of their
// own.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#include <catch2/catch.hpp>
#include <cstdlib>
#include <new>
#include <thread>

#include "tally/core/error.h"
#include "tally/core/io/json.h"
#include "tally/core/packed_product.h"
#include "tally/ops/options.h"

using namespace tally;

namespace {

thread_local long allocations_left = -1;  // before one fails; -1: none does
thread_local bool aligned_fails = false;

}  // namespace

void* operator new(std::size_t size) {
  if (allocations_left >= 0 && allocations_left-- == 0) throw std::bad_alloc();
  if (void* place = std::malloc(size)) return place;
  throw std::bad_alloc();
}
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  void* place = nullptr;
  return !aligned_fails && posix_memalign(&place, alignment, size) == 0 ? place : nullptr;
}
void operator delete(void* place) noexcept { std::free(place); }
void operator delete(void* place, std::size_t) noexcept { std::free(place); }

TEST_CASE("a thread that found no memory for its products' buffer finds it later", "[packed]") {
  bool thrown = false;
  float product = 0;
  std::thread([&] {
    const float a = 3, b = 5;
    const packed::Product task{
        .m = 1, .n = 1, .k = 1, .alpha = 1, .a = {&a, 1}, .b = {&b, 1}, .c = &product, .c_stride = 1};
    aligned_fails = true;
    try {
      packed::multiply(task);
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
    aligned_fails = false;
    packed::multiply(task);
  }).join();
  CHECK(thrown);
  CHECK(product == 15);
}

TEST_CASE("a copy of JSON that memory ends in throws, and nothing is broken", "[json]") {
  const std::string text(50, 'x');
  const Json inner = Json::object({{"a", text}, {"b", Json::array({1, 2.5, text, Json::object({{text, text}})})}});
  int failed = 0;
  for (long left = 0; left < 1000; ++left) {
    Json copy = 3;
    try {
      allocations_left = left;
      const Json made(inner);
      copy = made;
      allocations_left = -1;
      CHECK(copy == inner);
      break;
    } catch (const std::bad_alloc&) {
      allocations_left = -1;
      ++failed;
      CHECK(copy == Json(3));
    }
  }
  CHECK(failed > 8);
}

TEST_CASE("text that memory ends in is never cut short", "[error]") {
  const std::string part(3000, 'x');
  const std::string whole = detail::join(part, 12345, ' ', part, 0.5, part);
  int failed = 0;
  for (long left = 0; left < 100; ++left) {
    std::string text;
    try {
      allocations_left = left;
      text = detail::join(part, 12345, ' ', part, 0.5, part);
      allocations_left = -1;
      CHECK(text == whole);
      break;
    } catch (const std::bad_alloc&) {
      allocations_left = -1;
      ++failed;
    }
  }
  CHECK(failed > 1);
}

TEST_CASE("a copy of an option's value that memory ends in throws, and nothing is broken", "[options]") {
  for (const ops::OptionValue& value :
       {ops::OptionValue(std::string(50, 'x')), ops::OptionValue(std::vector<std::int64_t>{1, 2, 3})}) {
    ops::OptionValue copy = 2.5;
    int failed = 0;
    for (long left = 0; left < 10; ++left) {
      try {
        allocations_left = left;
        const ops::OptionValue made(value);
        copy = made;
        allocations_left = -1;
        break;
      } catch (const std::bad_alloc&) {
        allocations_left = -1;
        ++failed;
        CHECK(copy == ops::OptionValue(2.5));
      }
    }
    CHECK(copy == value);
    CHECK(failed == 2);
  }
}

#endif
