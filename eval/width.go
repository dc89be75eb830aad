package eval

import (
	"strings"
	"unicode"

	"quartet/visible"
)

// wide are the characters that take two columns of a terminal: East Asian wide and full-width ones, and emoji.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{{0x1100, 0x115f, 1}, {0x231a, 0x231b, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0xa4cf, 1}, {0xa960, 0xa97f, 1},
		{0xac00, 0xd7a3, 1}, {0xf900, 0xfaff, 1}, {0xfe30, 0xfe6f, 1}, {0xff00, 0xff60, 1}, {0xffe0, 0xffe6, 1}},
	R32: []unicode.Range32{{0x16fe0, 0x18aff, 1}, {0x1b000, 0x1b2ff, 1}, {0x1f300, 0x1f64f, 1}, {0x1f680, 0x1f6ff, 1},
		{0x1f900, 0x1faff, 1}, {0x20000, 0x3fffd, 1}},
}

// oneLine is untrusted text for a place of one line whose columns count.
func oneLine(text string) string { return strings.ReplaceAll(visible.Line(text), "\t", " ") }

// columns is how many columns of a terminal a text without control characters takes.
func columns(text string) int {
	n := 0
	for _, r := range text {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// pad fills a text up to a number of columns with spaces on the right.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-columns(text)))
}

// padLeft fills a text up to a number of columns with spaces on the left.
func padLeft(text string, width int) string {
	return strings.Repeat(" ", max(0, width-columns(text))) + text
}

// wrap breaks a text into lines of at most width columns: at its line ends, at spaces, and inside words that are longer.
func wrap(text string, width int) []string {
	var lines []string
	for paragraph := range strings.SplitSeq(strings.ReplaceAll(text, "\t", "    "), "\n") {
		line, used := "", 0
		for i, word := range strings.Split(paragraph, " ") {
			if i > 0 && used+1+columns(word) > width {
				lines, line, used = append(lines, line), "", 0
			} else if i > 0 {
				line, used = line+" ", used+1
			}
			for _, r := range word {
				if w := runeColumns(r); used > 0 && used+w > width {
					lines, line, used = append(lines, line), "", 0
				}
				line, used = line+string(r), used+runeColumns(r)
			}
		}
		lines = append(lines, line)
	}
	return lines
}
