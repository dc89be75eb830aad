package tui

import (
	"strings"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"

	"quartet/visible"
)

// longestCluster is how many characters a user-perceived character may consist of; those with more marks on top of one
// another would be drawn over the lines around them.
const longestCluster = 4

// safe makes untrusted text one line that takes exactly as many columns on every terminal as columns says: nothing in it is
// obeyed or invisible, and characters whose width terminals disagree on are replaced.
func (t *theme) safe(text string) string { return t.clean(visible.Line(text)) }

// safeLines is safe for text of several lines.
func (t *theme) safeLines(text string) string { return t.clean(visible.Text(text)) }

func (t *theme) clean(text string) string {
	plain := true
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf || text[i] == '\t' {
			plain = false
			break
		}
	}
	if plain {
		return text
	}
	var out strings.Builder
	for len(text) > 0 {
		if c := text[0]; c < utf8.RuneSelf && (len(text) == 1 || text[1] < utf8.RuneSelf) {
			if c == '\t' {
				out.WriteString("    ")
			} else {
				out.WriteByte(c)
			}
			text = text[1:]
			continue
		}
		cluster, _ := ansi.FirstGraphemeCluster(text, ansi.GraphemeWidth)
		text = text[len(cluster):]
		out.WriteString(t.settled(cluster))
	}
	return out.String()
}

// settled is a character, or what stands for it where terminals disagree on its width.
func (t *theme) settled(cluster string) string {
	if cluster == "\n" {
		return cluster
	}
	if cluster[0] == '\t' {
		return "    "
	}
	if t.ascii && cluster[0] >= utf8.RuneSelf {
		if plain := asciiFor[cluster]; plain != "" {
			return plain
		}
		return "?"
	}
	first, n := utf8.DecodeRuneInString(cluster)
	if agreed(cluster) && utf8.RuneCountInString(cluster) <= longestCluster {
		return cluster
	}
	if base := cluster[:n]; n < len(cluster) && agreed(base) {
		return base
	}
	if first < utf8.RuneSelf {
		return string(first)
	}
	return "\ufffd"
}

// asciiFor are the program's own characters where a terminal has ASCII alone.
var asciiFor = map[string]string{"…": "~", "–": "-", "·": "|", "µ": "u", "⏎": "$", "→": ">", "←": "<", "↑": "^", "↓": "v", "‖": "|", "×": "x"}

// agreed reports whether the two ways in which terminals measure text give a character the same width, above none.
func agreed(cluster string) bool {
	whole := ansi.StringWidth(cluster)
	sum := 0
	for _, r := range cluster {
		sum += ansi.StringWidthWc(string(r))
	}
	return whole > 0 && whole <= 2 && whole == sum && whole == ansi.StringWidthWc(cluster)
}

// columns is the width of safe text.
func columns(text string) int {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return ansi.StringWidth(text)
		}
	}
	return len(text)
}

// cut is the longest beginning of safe text that fits in so many columns.
func cut(text string, width int) string {
	if width <= 0 {
		return ""
	}
	used := 0
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf && (i+1 == len(text) || text[i+1] < utf8.RuneSelf) {
			if used++; used > width {
				return text[:i]
			}
			i++
			continue
		}
		cluster, w := ansi.FirstGraphemeCluster(text[i:], ansi.GraphemeWidth)
		if used += w; used > width {
			return text[:i]
		}
		i += len(cluster)
	}
	return text
}

// fit cuts or fills safe text to exactly so many columns; what is cut ends in an ellipsis.
func (t *theme) fit(text string, width int) string {
	w := columns(text)
	if w > width {
		text = cut(text, width-1)
		if width > 0 {
			text += t.glyph.more
		}
		w = columns(text)
	}
	return text + spaces(width-w)
}

const blanks = "                                                                                                                                "

func spaces(n int) string {
	if n <= 0 {
		return ""
	}
	if n <= len(blanks) {
		return blanks[:n]
	}
	return strings.Repeat(" ", n)
}

// wrap breaks safe text into lines of at most width columns: at its line ends, at spaces, and inside words that are longer.
func wrap(text string, width int) (lines []string) {
	width = max(width, 1)
	for paragraph := range strings.SplitSeq(text, "\n") {
		for {
			head := cut(paragraph, width)
			if len(head) == len(paragraph) {
				lines = append(lines, head)
				break
			}
			if head == "" { // a wide character in a single column
				_, n := utf8.DecodeRuneInString(paragraph)
				if lines, paragraph = append(lines, "?"), strings.TrimPrefix(paragraph[n:], " "); paragraph == "" {
					break
				}
				continue
			}
			rest := paragraph[len(head):]
			if rest[0] != ' ' {
				if at := strings.LastIndexByte(head, ' '); at > 0 {
					head, rest = head[:at], paragraph[at:]
				}
			}
			lines = append(lines, head)
			paragraph = strings.TrimPrefix(rest, " ")
		}
	}
	return lines
}

// line builds one line of an exact width from pieces of safe text. Pieces beyond the width are cut.
type line struct {
	t     *theme
	out   strings.Builder
	used  int
	width int
}

func (t *theme) line(width int) *line { return &line{t: t, width: width} }

// add appends a piece.
func (l *line) add(r role, text string) *line {
	room := l.width - l.used
	if room <= 0 || text == "" {
		return l
	}
	if l.t.ascii {
		text = l.t.clean(text)
	}
	w := columns(text)
	if w > room {
		text = l.t.fit(text, room)
		w = room
	}
	l.out.WriteString(l.t.paint(r, text))
	l.used += w
	return l
}

// to fills with spaces up to a column.
func (l *line) to(column int) *line { return l.add(plain, spaces(min(column, l.width)-l.used)) }

// right appends a piece at the right edge, if there is room for all of it and a space before it.
func (l *line) right(r role, text string) *line {
	if w := columns(text); l.used+w+1 <= l.width {
		l.to(l.width-w).add(r, text)
	}
	return l
}

// String is the line, filled up to its width.
func (l *line) String() string {
	l.to(l.width)
	return l.out.String()
}
