package eval

import (
	"fmt"
	"strings"

	"quartet/visible"
)

// columnsFrom is the width of a terminal from which answers stand side by side, and narrowestColumn a column's least.
const (
	columnsFrom     = 80
	narrowestColumn = 16
)

// Text is the comparison for a terminal of a width in columns: the answers side by side, or one below the other where
// the columns would be too narrow to read. With color the names are bold and the timings faint.
func (c Comparison) Text(width int, color bool) string {
	style := func(code, text string) string {
		if !color {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	var out strings.Builder
	line := func(text string) { out.WriteString(strings.TrimRight(text, " ") + "\n") }
	for _, l := range wrap("> "+visible.Text(c.Prompt), max(width, 20)) {
		line(style("1", l))
	}
	n := max(len(c.Answers), 1)
	column := (width - 2*(n-1)) / n
	if width < columnsFrom || column < narrowestColumn {
		for _, a := range c.Answers {
			line("")
			line(style("1", oneLine(a.Variant)))
			for _, l := range wrap(a.body(), max(width-2, 20)) {
				line("  " + l)
			}
			if timings := a.timings(); len(timings) > 0 {
				for _, l := range wrap(strings.Join(timings, " · "), max(width-2, 20)) {
					line("  " + style("2", l))
				}
			}
		}
		return out.String()
	}
	line("")
	row := func(code string, blocks [][]string) {
		for i := range longestOf(blocks) {
			text := ""
			for n, b := range blocks {
				cell := ""
				if i < len(b) {
					cell = b[i]
				}
				if n > 0 {
					text += "  "
				}
				text += pad(cell, column)
			}
			text = strings.TrimRight(text, " ")
			if code != "" {
				text = style(code, text)
			}
			line(text)
		}
	}
	blocks := func(of func(a Answered) []string) [][]string {
		var all [][]string
		for _, a := range c.Answers {
			all = append(all, of(a))
		}
		return all
	}
	row("1", blocks(func(a Answered) []string { return wrap(oneLine(a.Variant), column) }))
	row("", blocks(func(Answered) []string { return []string{strings.Repeat("─", column)} }))
	row("", blocks(func(a Answered) []string { return wrap(a.body(), column) }))
	line("")
	row("2", blocks(func(a Answered) []string {
		var lines []string
		for _, t := range a.timings() {
			lines = append(lines, wrap(t, column)...)
		}
		return lines
	}))
	return out.String()
}

func longestOf(blocks [][]string) int {
	n := 0
	for _, b := range blocks {
		n = max(n, len(b))
	}
	return n
}

// body is the answer, or why there is none.
func (a Answered) body() string {
	if a.Missing != "" {
		return "missing: " + oneLine(a.Missing)
	}
	text := strings.TrimSpace(visible.Text(a.Answer))
	if !a.Complete {
		text += " …"
	}
	return text
}

// timings are the answer's measurements, each a short text.
func (a Answered) timings() []string {
	if a.Missing != "" {
		return nil
	}
	lines := []string{fmt.Sprintf("%d tokens", a.Tokens)}
	if a.TTFTSeconds.Known() {
		lines = append(lines, "first "+formatSeconds(a.TTFTSeconds))
	}
	if a.PrefillTokensPerSecond.Known() {
		lines = append(lines, "prefill "+plain(a.PrefillTokensPerSecond)+"/s")
	}
	if a.DecodeTokensPerSecond.Known() {
		lines = append(lines, "decode "+plain(a.DecodeTokensPerSecond)+"/s")
	}
	return lines
}
