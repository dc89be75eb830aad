package visible

import (
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON makes JSON text safe to show without changing what it means: what Text would replace becomes a \u escape. Such
// characters stand in strings alone, so the result is the same value. text must be valid JSON.
func JSON(text []byte) []byte {
	s := string(text)
	var out strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\r' || !bad(r, n, false):
			out.WriteString(s[i : i+n])
		case r <= 0xffff:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		}
		i += n
	}
	return []byte(out.String())
}
