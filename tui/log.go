package tui

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// logView is the log: the newest lines below, unless its user has scrolled up.
type logView struct {
	filter input
	level  int // 0 all, 1 warnings and failures, 2 failures
	back   int // lines that the view is above the end
}

func (v *logView) title(m *model) string {
	text := [...]string{"all lines", "warnings and failures", "failures"}[v.level]
	if f := v.filter.text(); f != "" {
		text += fmt.Sprintf(" with %q", m.theme.safe(f))
	}
	return text
}

func (v *logView) nextLevel() { v.level, v.back = (v.level+1)%3, 0 }

func (v *logView) scroll(lines int) { v.back = max(0, min(v.back-lines, logLimit)) }

// logText is one line of the log.
func (m *model) logText(line logLine, w int) string {
	l := m.theme.line(w).add(dim, " "+line.at.Local().Format("15:04:05")+" ")
	if line.stage != "" && w > 50 {
		l.add(dim, m.theme.safe(line.stage)).to(24)
	}
	return l.add(line.role, m.theme.safe(line.text)).String()
}

func (v *logView) draw(m *model, w, h int) (lines []string, cursor *tea.Cursor) {
	if v.filter.active || v.filter.text() != "" {
		h--
		text, c := v.filter.draw(m.theme, w-9, 1)
		lines = append(lines, m.theme.line(w).add(accent, " filter: ").add(plain, text[0]).String())
		if v.filter.active {
			cursor = shift(c, 9, 0)
		}
	}
	var shown []logLine
	needle := strings.ToLower(v.filter.text())
	for _, line := range m.state.lines {
		if v.level == 1 && line.role != warn && line.role != bad || v.level == 2 && line.role != bad {
			continue
		}
		if needle == "" || strings.Contains(strings.ToLower(line.stage+" "+line.text), needle) {
			shown = append(shown, line)
		}
	}
	if len(shown) == 0 {
		text := fmt.Sprintf("nothing yet; press %s to run what is stale", m.keyOf("run_all"))
		if len(m.state.lines) > 0 {
			text = fmt.Sprintf("no line matches; %s changes the filter, %s the level", m.keyOf("filter"), m.keyOf("errors"))
		}
		return append(lines, m.advice(w, text)...), cursor
	}
	v.back = min(v.back, max(len(shown)-h, 0))
	from := max(0, len(shown)-h-v.back)
	for _, line := range shown[from:min(len(shown), from+max(h, 0))] {
		lines = append(lines, m.logText(line, w))
	}
	return lines, cursor
}
