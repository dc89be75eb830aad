package tui

import (
	"iter"
	"strings"
	"unicode"
)

// diffLimit bounds the words that are compared, so that a long answer cannot hold up the keys.
const diffLimit = 800

// marks are what differs between two texts that only grow, found anew when one of them has.
type marks struct {
	base, text int // the lengths for which roles were found
	theme      *theme
	roles      []role
}

// against gives a function that tells for each character of text that is no space, in order, whether its word is one that
// base lacks. Both texts are untrusted.
func (m *marks) against(t *theme, base, text string) func(rune) role {
	if m.theme != t || m.base != len(base) || m.text != len(text) {
		*m = marks{len(base), len(text), t, compare(t.safeLines(base), t.safeLines(text))}
	}
	at := 0
	return func(c rune) role {
		if unicode.IsSpace(c) || at >= len(m.roles) {
			return plain
		}
		at++
		return m.roles[at-1]
	}
}

// compare is for each character of text that is no space whether its word is one that base lacks.
func compare(base, text string) (marks []role) {
	a, b := strings.Fields(base), strings.Fields(text)
	a, all := a[:min(len(a), diffLimit)], b
	b = b[:min(len(b), diffLimit)]
	longest := make([][]int16, len(a)+1) // of the common subsequences of a[i:] and b[j:]
	for i := range longest {
		longest[i] = make([]int16, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			} else {
				longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for _, word := range all {
		r := added
		for i < len(a) && j < len(b) && a[i] != b[j] && longest[i+1][j] >= longest[i][j+1] {
			i++
		}
		if i < len(a) && j < len(b) && a[i] == b[j] {
			r, i = plain, i+1
		}
		j++
		for range word {
			marks = append(marks, r)
		}
	}
	return marks
}

// pieces are the parts of a line that look the same.
func pieces(text string, look func(rune) role) iter.Seq2[string, role] {
	return func(yield func(string, role) bool) {
		from, last := 0, plain
		for i, c := range text {
			if r := look(c); r != last {
				if i > from && !yield(text[from:i], last) {
					return
				}
				from, last = i, r
			}
		}
		if from < len(text) {
			yield(text[from:], last)
		}
	}
}
