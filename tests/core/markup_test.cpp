#include <catch2/catch.hpp>

#include "tally/core/report/markup.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/well_formed.h"

namespace markup_test {

using namespace tally;

TEST_CASE("markup escapes what is markup and what is no text", "[markup]") {
  CHECK(escape_markup("a<b & \"c\" > 'd'") == "a&lt;b &amp; &quot;c&quot; &gt; &#39;d&#39;");
  CHECK(escape_markup("Am\xC3\xA9lie \xE2\x80\x94 \xF0\x9F\x8E\xAC") == "Am\xC3\xA9lie \xE2\x80\x94 \xF0\x9F\x8E\xAC");
  CHECK(escape_markup(std::string_view("a\0b\x1B\tc", 6)) ==
        "a\xEF\xBF\xBD"
        "b\xEF\xBF\xBD\tc");
  CHECK(escape_markup("\xFFz") == "\xEF\xBF\xBDz");
  CHECK(escape_markup("\xEF\xBF\xBE") == "\xEF\xBF\xBD");
  CHECK(escape_markup("") == "");
}

TEST_CASE("elements nest and must be closed", "[markup]") {
  Markup page;
  page.open("p", {{"title", "\"<&\""}}).text("1 < 2").empty("br").element("b", "x").close();
  CHECK(page.finish() == "<p title=\"&quot;&lt;&amp;&quot;\">1 &lt; 2<br /><b>x</b></p>\n");
  Markup open;
  open.open("p");
  CHECK(test::message_of<ValueError>([&] { open.finish(); }) == "[markup] needs every element closed; <p> is open");
  open.close();
  CHECK_THROWS_AS(open.close(), ValueError);
}

TEST_CASE("the check of well-formedness used by tests finds what is not", "[markup]") {
  using test::malformed;
  CHECK(malformed("<a b=\"c\"><d />x &amp; y</a>") == "");
  for (const char* text : {"<a>", "<a></b>", "<a b=c></a>", "<a>&</a>", "<a>&nope;</a>", "<a b=\"<\"></a>",
                           "<a b=\"1\" b=\"2\"></a>", "</a>", "<a></a><b></b>", "<a", "text"}) {
    INFO(text);
    CHECK(malformed(text) != "");
  }
}

}  // namespace markup_test
