"""Prints and raises what breaks pages, spreadsheets and terminals: tags, formulas, turned and stacked letters."""

tricks = "</pre><script>steal()</script><img src=x onerror=alert(1)>\n=HYPERLINK(\"http://x\")\n@SUM(1)\n\u202e\u2066turned"
tricks += "\u2069 Z\u0351\u0344\u0300 \ufeff \u2028 {{ 7 * 7 }} {% raw %} `code` \x1b]0;title\x07 \x9b2J"
print(tricks)


def double(x):
    raise type("<b>=Error</b>", (Exception,), {})(tricks)
