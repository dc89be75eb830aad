package visible

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

var cases = []struct{ in, text, line string }{
	{"", "", ""},
	{"plain text", "plain text", "plain text"},
	{"a\tb\nc", "a\tb\nc", "a\tb⏎c"},
	{"a\r\nb", `a\x0d` + "\nb", `a\x0d⏎b`},
	{"\x00\x07\x08\x0b\x0c\x1f", `\x00\x07\x08\x0b\x0c\x1f`, `\x00\x07\x08\x0b\x0c\x1f`},
	{"\x1b[31mred\x1b]0;title\x07", `\x1b[31mred\x1b]0;title\x07`, `\x1b[31mred\x1b]0;title\x07`},
	{"\x7f", `\x7f`, `\x7f`},
	{"\u0080\u0085\u009b31m\u009f\u00a0", `\u0080\u0085\u009b31m\u009f` + "\u00a0", `\u0080\u0085\u009b31m\u009f` + "\u00a0"},
	{"\u202a\u202b\u202c\u202d\u202e", `\u202a\u202b\u202c\u202d\u202e`, `\u202a\u202b\u202c\u202d\u202e`},
	{"\u2066\u2067\u2068\u2069\u200e\u200f\u061c", `\u2066\u2067\u2068\u2069\u200e\u200f\u061c`, `\u2066\u2067\u2068\u2069\u200e\u200f\u061c`},
	{"a\u200bb\u200cc\u200dd\u2060e\ufefff", `a\u200bb\u200cc\u200dd\u2060e\ufefff`, `a\u200bb\u200cc\u200dd\u2060e\ufefff`},
	{"\u2028\u2029", `\u2028\u2029`, `\u2028\u2029`},
	{"soft\u00adhyphen, filler \u3164\u115f", `soft\u00adhyphen, filler \u3164\u115f`, `soft\u00adhyphen, filler \u3164\u115f`},
	{"tag \U000e0041, selector \U000e0100", `tag \U000e0041, selector \U000e0100`, `tag \U000e0041, selector \U000e0100`},
	{"\xff\x9b\xc3", `\xff\x9b\xc3`, `\xff\x9b\xc3`},
	{"\xed\xa0\x80\xf4\x90\x80\x80", `\xed\xa0\x80\xf4\x90\x80\x80`, `\xed\xa0\x80\xf4\x90\x80\x80`},
	{"\xc0\x8a", `\xc0\x8a`, `\xc0\x8a`},
	{"é ⏎ 日本 \ufffd 😀 ❤\ufe0f e\u0301 \u0600", "é ⏎ 日本 \ufffd 😀 ❤\ufe0f e\u0301 \u0600", "é ⏎ 日本 \ufffd 😀 ❤\ufe0f e\u0301 \u0600"},
	{`\x1b stays`, `\x1b stays`, `\x1b stays`},
}

func TestVisible(t *testing.T) {
	for _, c := range cases {
		if got := Text(c.in); got != c.text {
			t.Errorf("Text(%q) = %q, want %q", c.in, got, c.text)
		}
		if got := Line(c.in); got != c.line {
			t.Errorf("Line(%q) = %q, want %q", c.in, got, c.line)
		}
	}
}

func TestCleanTextIsReturnedAsItIs(t *testing.T) {
	in := strings.Repeat("plain text, é and 日本\n", 100)
	if got := Text(in); unsafe.StringData(got) != unsafe.StringData(in) {
		t.Error("clean text was copied")
	}
	if n := testing.AllocsPerRun(10, func() { Text(in) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzVisible(f *testing.F) {
	for _, c := range cases {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, line := Text(s), Line(s)
		for _, out := range []string{text, line} {
			if !utf8.ValidString(out) {
				t.Fatalf("%q is not valid UTF-8", out)
			}
			for _, r := range out {
				if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control, unicode.Join_Control) {
					t.Fatalf("%q holds %U", out, r)
				}
			}
		}
		if strings.Contains(line, "\n") || line != strings.ReplaceAll(text, "\n", "⏎") {
			t.Fatalf("Line gives %q, Text %q", line, text)
		}
		if Text(text) != text || Line(line) != line {
			t.Fatalf("a second pass changes %q", text)
		}
	})
}
