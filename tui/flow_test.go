package tui

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/charmbracelet/colorprofile"
)

// TestFlowIsWrap lets texts grow by pieces of any length and holds the lines against those of the whole text.
func TestFlowIsWrap(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	texts := append(hostile, " two words\n\nand a paragraph  with   spaces that goes on for a few lines\n\n\n", "e\u0301te\u0301 "+strings.Repeat("naïve café ", 30))
	for _, ascii := range []bool{false, true} {
		theme := newTheme(colorprofile.TrueColor, true, ascii)
		for _, text := range texts {
			text = strings.ToValidUTF8(text, "\ufffd")
			for _, width := range []int{1, 2, 7, 28} {
				want := wrap(strings.Trim(theme.safeLines(text), " \n"), width)
				var f flow
				var got []string
				for taken := 0; taken < len(text); {
					for range 1 + random.IntN(9) {
						_, n := utf8.DecodeRuneInString(text[taken:])
						taken += n
					}
					got = f.lines(theme, text[:taken], width)
				}
				for i := range got {
					got[i] = strings.TrimRight(got[i], " ")
				}
				for i := range want {
					want[i] = strings.TrimRight(want[i], " ")
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%.40q at %d columns:\n%q, whole\n%q", text, width, got, want)
				}
			}
		}
	}
}
