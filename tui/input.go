package tui

import (
	"strings"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// input is a text being written. It keeps the text as it was typed or pasted and draws it safely.
type input struct {
	clusters []string // user-perceived characters
	at       int      // the cursor is before this one
	active   bool
}

func (in *input) text() string { return strings.Join(in.clusters, "") }

func (in *input) set(text string) {
	in.clusters, in.at = nil, 0
	in.insert(text)
}

// insert puts text at the cursor. Line ends of any kind become one.
func (in *input) insert(text string) {
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.ToValidUTF8(text, "\ufffd"))
	var added []string
	for text != "" {
		cluster, _ := ansi.FirstGraphemeCluster(text, ansi.GraphemeWidth)
		if cluster == "" {
			_, n := utf8.DecodeRuneInString(text)
			cluster = text[:n]
		}
		added, text = append(added, cluster), text[len(cluster):]
	}
	in.clusters = append(in.clusters[:in.at:in.at], append(added, in.clusters[in.at:]...)...)
	in.at += len(added)
}

// key edits the text and reports whether the key was one that does.
func (in *input) key(k tea.KeyPressMsg) bool {
	n := len(in.clusters)
	switch k.String() {
	case "left", "ctrl+b":
		in.at = max(in.at-1, 0)
	case "right", "ctrl+f":
		in.at = min(in.at+1, n)
	case "home", "ctrl+a":
		in.at = in.lineStart()
	case "end", "ctrl+e":
		in.at = in.lineEnd()
	case "up":
		in.at = max(in.lineStart()-1, 0)
	case "down":
		in.at = min(in.lineEnd()+1, n)
	case "alt+left", "ctrl+left", "alt+b":
		in.at = in.wordLeft()
	case "alt+right", "ctrl+right", "alt+f":
		in.at = in.wordRight()
	case "backspace", "ctrl+h":
		in.remove(max(in.at-1, 0), in.at)
	case "delete", "ctrl+d":
		in.remove(in.at, min(in.at+1, n))
	case "ctrl+w", "alt+backspace":
		in.remove(in.wordLeft(), in.at)
	case "ctrl+u":
		in.remove(in.lineStart(), in.at)
	case "ctrl+k":
		in.remove(in.at, in.lineEnd())
	default:
		if k.Text == "" || k.Mod&^(tea.ModShift|tea.ModCapsLock) != 0 {
			return false
		}
		in.insert(k.Text)
	}
	return true
}

func (in *input) remove(from, to int) {
	in.clusters = append(in.clusters[:from:from], in.clusters[to:]...)
	in.at = from
}

func (in *input) lineStart() int {
	at := in.at
	for at > 0 && in.clusters[at-1] != "\n" {
		at--
	}
	return at
}

func (in *input) lineEnd() int {
	at := in.at
	for at < len(in.clusters) && in.clusters[at] != "\n" {
		at++
	}
	return at
}

func (in *input) wordLeft() int {
	at := in.at
	for at > 0 && strings.TrimSpace(in.clusters[at-1]) == "" {
		at--
	}
	for at > 0 && strings.TrimSpace(in.clusters[at-1]) != "" {
		at--
	}
	return at
}

func (in *input) wordRight() int {
	at := in.at
	for at < len(in.clusters) && strings.TrimSpace(in.clusters[at]) == "" {
		at++
	}
	for at < len(in.clusters) && strings.TrimSpace(in.clusters[at]) != "" {
		at++
	}
	return at
}

// draw is the text in at most h lines of w columns around the cursor, and the cursor's place in them.
func (in *input) draw(t *theme, w, h int) ([]string, *tea.Cursor) {
	w, h = max(w, 2), max(h, 1)
	var lines []string
	current, used, x, y := "", 0, 0, 0
	for i := 0; ; i++ {
		shown, width := "", 0
		if i < len(in.clusters) && in.clusters[i] != "\n" {
			shown = t.safe(in.clusters[i])
			width = columns(shown)
		}
		if used > 0 && used+max(width, 1) > w {
			lines, current, used = append(lines, current), "", 0
		}
		if i == in.at {
			x, y = used, len(lines)
		}
		if i == len(in.clusters) {
			break
		}
		if in.clusters[i] == "\n" {
			lines, current, used = append(lines, current), "", 0
			continue
		}
		shown = cut(shown, w)
		current, used = current+shown, used+columns(shown)
	}
	lines = append(lines, current)
	from := max(0, min(y-h/2, len(lines)-h))
	lines = lines[from:min(len(lines), from+h)]
	for i := range lines {
		lines[i] = t.fit(lines[i], w)
	}
	c := tea.NewCursor(x, y-from)
	c.Blink = false
	c.Shape = tea.CursorBar
	return lines, c
}
