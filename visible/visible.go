// Package visible makes text safe to show: what a terminal would obey, reorder or hide becomes plain ASCII.
package visible

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text replaces every control character, bidi control, zero-width or otherwise invisible character and byte of invalid
// UTF-8 in s by an escape such as \x1b or \u202e. New lines and tabs stay. The result is valid UTF-8, and the same as s
// where there is nothing to replace. A backslash in s stays one, so the result cannot be turned back.
func Text(s string) string { return replace(s, false) }

// Line is Text for places of one line: a new line becomes ⏎.
func Line(s string) string { return replace(s, true) }

func replace(s string, oneLine bool) string {
	clean := 0
	for clean < len(s) {
		r, n := utf8.DecodeRuneInString(s[clean:])
		if bad(r, n, oneLine) {
			break
		}
		clean += n
	}
	if clean == len(s) {
		return s
	}
	var out strings.Builder
	out.WriteString(s[:clean])
	for i := clean; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case !bad(r, n, oneLine):
			out.WriteString(s[i : i+n])
		case r == '\n':
			out.WriteRune('⏎')
		case n == 1:
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case r <= 0xffff:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			fmt.Fprintf(&out, `\U%08x`, r)
		}
		i += n
	}
	return out.String()
}

// bad tells whether r, decoded from n bytes, must not be shown as it is.
func bad(r rune, n int, oneLine bool) bool {
	switch {
	case r == '\n':
		return oneLine
	case r == '\t':
		return false
	case r < utf8.RuneSelf:
		return r < ' ' || r == 0x7f
	case r == utf8.RuneError:
		return n == 1
	}
	return hidden(r)
}

// hidden tells whether a character outside ASCII has no glyph of its own or steers those around it. The selectors of
// text and emoji style stay, because they change how the character before them looks and are common in plain text; the
// Arabic number signs among the format characters stay, because they are visible.
func hidden(r rune) bool {
	switch {
	case r == 0xfe0e || r == 0xfe0f:
		return false
	case unicode.In(r, unicode.Cf):
		return !unicode.Is(unicode.Prepended_Concatenation_Mark, r)
	}
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
