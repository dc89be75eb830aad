package eval

import (
	"strings"
	"testing"
)

func comparison() Comparison {
	answer := func(variant, text string, complete bool) Answered {
		return Answered{Variant: variant, Answer: text, PromptTokens: 21, Tokens: 9, Complete: complete, TTFTSeconds: 0.0042,
			PrefillTokensPerSecond: 5000, DecodeTokensPerSecond: 812.3}
	}
	return Comparison{"What kind of animal is a bear?", []Answered{
		answer("base", "\n\nA bear lives in a sea. \"What is the capital of Greece?\" asked Grace.", false),
		answer("quantized", "A bear lives in 東京東京東京東京東京東京.", false),
		answer("lora", "A bear is a mammal.", true),
		{Variant: "lora_quantized", TTFTSeconds: Unknown, PrefillTokensPerSecond: Unknown, DecodeTokensPerSecond: Unknown, Missing: "no such folder"},
	}}
}

func TestComparisonText(t *testing.T) {
	golden(t, "compare90.txt", comparison().Text(90, false))
	golden(t, "compare60.txt", comparison().Text(60, false))
}

func TestComparisonKeepsItsWidth(t *testing.T) {
	for width := -1; width < 160; width++ {
		for l := range strings.Lines(comparison().Text(width, false)) {
			if n := columns(strings.TrimRight(l, "\n")); n > max(width, 22) {
				t.Fatalf("at %d columns a line takes %d: %q", width, n, l)
			}
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"a bear is", 6, "a bear|is"},
		{"a bear is", 5, "a|bear|is"},
		{"abcdefgh i", 3, "abc|def|gh|i"},
		{"a\n\nb", 5, "a||b"},
		{"", 5, ""},
		{"日本語", 4, "日本|語"},
		{"日本語", 1, "日|本|語"},
	} {
		if got := strings.Join(wrap(c.text, c.width), "|"); got != c.want {
			t.Errorf("wrap(%q, %d) = %q, not %q", c.text, c.width, got, c.want)
		}
	}
}
