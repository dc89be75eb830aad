package tui

import (
	"strings"

	"github.com/charmbracelet/x/ansi"

	"quartet/visible"
)

// flow is untrusted text that grows at its end, made safe and wrapped. Lines that no further text can change are kept, so that
// a piece costs the same however long the text before it is.
type flow struct {
	theme *theme
	width int
	taken int      // bytes of the text that are in what follows
	done  []string // finished lines
	open  string   // the safe text of the line after them
	last  string   // the last character as it came, onto which marks may still be put
}

// lines are the text's lines of at most width columns, without space around the whole. The text must begin with the one of
// the call before, or the flow be a new one.
func (f *flow) lines(t *theme, text string, width int) []string {
	if f.theme != t || f.width != width || f.taken > len(text) {
		*f = flow{theme: t, width: width}
	}
	rest := f.last + visible.Text(text[f.taken:])
	f.taken = len(text)
	if len(f.done) == 0 && f.open == "" {
		rest = strings.TrimLeft(rest, " \t\n")
	}
	f.last = lastCluster(rest)
	f.open += t.clean(rest[:len(rest)-len(f.last)])
	lines := wrap(f.open, width)
	f.done = append(f.done, lines[:len(lines)-1]...)
	f.open = lines[len(lines)-1]
	all := append(f.done[:len(f.done):len(f.done)], wrap(f.open+t.clean(f.last), width)...)
	for len(all) > 1 && strings.TrimSpace(all[len(all)-1]) == "" {
		all = all[:len(all)-1]
	}
	return all
}

// lastCluster is the last user-perceived character of a text. Only the part after its last two letters of ASCII that stand
// side by side is looked at: nothing joins over these.
func lastCluster(text string) string {
	from := len(text)
	for from > 0 {
		from--
		if from > 0 && letter(text[from]) && letter(text[from-1]) {
			break
		}
	}
	cluster := ""
	for rest := text[from:]; rest != ""; rest = rest[len(cluster):] {
		cluster, _ = ansi.FirstGraphemeCluster(rest, ansi.GraphemeWidth)
	}
	return cluster
}

func letter(c byte) bool { return c > ' ' && c < 0x7f }
