package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"
)

// The least sizes from which parts of the screen are shown.
const (
	sideBySide   = 104 // columns from which the memory stands beside the stages
	memoryFrom   = 20  // lines from which it has a line of its own otherwise
	stagesFrom   = 12  // lines from which the stages are shown above the main pane
	stagesWidest = 84
)

// draw is the frame: header, stages and memory, the main pane under its tabs, and a line of keys.
func (m *model) draw() (string, *tea.Cursor) {
	w, h := m.width, m.height
	if w < 1 || h < 1 {
		return "", nil
	}
	var cursor *tea.Cursor
	lines := []string{m.header(w)}
	room := h - 2
	switch {
	case h < 3 || w < 12:
		lines = append(lines, m.tiny(w, h-1)...)
		room = 0
	case m.dialog != nil:
		body, c := m.dialog.draw(m, w, room)
		lines, cursor = append(lines, body...), shift(c, 0, 1)
		room = 0
	case m.zoomed || h < stagesFrom:
		body, c := m.pane(m.focus, w, room)
		lines, cursor = append(lines, body...), shift(c, 0, 1)
		room = 0
	default:
		top := m.top(w, h)
		room -= len(top)
		lines = append(append(lines, top...), m.tabs(w))
		room--
		body, c := m.pane(m.main, w, room)
		cursor = shift(c, 0, len(lines))
		lines = append(lines, body...)
	}
	for len(lines) < h-1 {
		lines = append(lines, spaces(w))
	}
	if h > 1 {
		lines = append(lines[:h-1], m.footer(w))
	}
	return strings.Join(lines, "\n"), cursor
}

func shift(c *tea.Cursor, x, y int) *tea.Cursor {
	if c != nil {
		c.X, c.Y = c.X+x, c.Y+y
	}
	return c
}

// top is the stages, with the memory beside or below them.
func (m *model) top(w, h int) []string {
	if w < sideBySide {
		lines := m.stageRows(w)
		if h >= memoryFrom {
			lines = append([]string{m.titled("Stages", m.focus == stagesPane, w)}, lines...)
			lines = append(lines, m.memory.lines(m, w, 1)...)
		}
		return lines
	}
	left := min(w*2/3, stagesWidest)
	stages := append([]string{m.titled("Stages", m.focus == stagesPane, left)}, m.stageRows(left)...)
	memory := append([]string{m.titled("Memory", false, w-left-1)}, m.memory.lines(m, w-left-1, len(stages)-1)...)
	for i := range stages {
		stages[i] += " " + memory[i]
	}
	return stages
}

// titled is the line above a pane.
func (m *model) titled(name string, focused bool, w int) string {
	r := strong
	if focused {
		r = accent
	}
	l := m.theme.line(w).add(rule, strings.Repeat(m.theme.glyph.rule, 1)).add(r, " "+name+" ")
	return l.add(rule, strings.Repeat(m.theme.glyph.rule, max(w-l.used, 0))).String()
}

// tabs is the line above the main pane.
func (m *model) tabs(w int) string {
	l := m.theme.line(w).add(rule, m.theme.glyph.rule)
	for _, tab := range tabs {
		r := dim
		name := " " + tab.name + " "
		if tab.pane == stagePane {
			if m.main != stagePane {
				continue
			}
			name = " " + m.chosenStage() + " "
		}
		if tab.pane == m.main {
			r = chosen
			if m.focus != m.main {
				r = strong
			}
		}
		l.add(r, name).add(rule, m.theme.glyph.rule)
	}
	title := ""
	switch m.main {
	case lossPane:
		title = m.loss.title(m)
	case chatPane:
		title = m.chat.title(m)
	case logPane:
		title = m.log.title(m)
	}
	if room := w - l.used - 2; room > 6 && title != "" {
		title = " " + cut(m.theme.clean(title), room-2) + " "
		l.add(rule, strings.Repeat(m.theme.glyph.rule, room-columns(title)+1)).add(dim, title)
	}
	return l.add(rule, strings.Repeat(m.theme.glyph.rule, max(w-l.used, 0))).String()
}

// pane draws one pane into exactly h lines.
func (m *model) pane(p pane, w, h int) (lines []string, cursor *tea.Cursor) {
	switch p {
	case stagesPane:
		lines = append(m.stageRows(w), m.memory.lines(m, w, max(h-len(m.state.names), 0))...)
	case lossPane:
		lines = m.loss.lines(m, w, h)
	case chatPane:
		lines, cursor = m.chat.lines(m, w, h)
	case resultsPane:
		lines = m.resultLines(w, h)
	case logPane:
		lines, cursor = m.log.draw(m, w, h)
	case stagePane:
		lines = m.stageLines(w, h)
	}
	return m.block(lines, w, h), cursor
}

// advice is what an empty pane says: what to press, or why there is no worker that could fill it.
func (m *model) advice(w int, text string) (lines []string) {
	if m.lost != "" {
		text = "no worker: " + m.theme.safeLines(strings.TrimSpace(m.lost)) + "\n" + m.keyOf("worker") + " finds or starts it"
	}
	for _, part := range wrap(text, max(w-2, 1)) {
		lines = append(lines, m.theme.line(w).add(dim, " "+part).String())
	}
	return lines
}

// block cuts or fills lines to exactly h.
func (m *model) block(lines []string, w, h int) []string {
	h = max(h, 0)
	for len(lines) < h {
		lines = append(lines, spaces(w))
	}
	return lines[:h]
}

// tiny is what fits where nothing does: how the work goes.
func (m *model) tiny(w, h int) []string {
	var lines []string
	for i := range m.stageRows(max(w, 1)) {
		if name := m.state.names[i]; i < h {
			lines = append(lines, m.theme.line(w).add(plain, name[:1]+" "+m.state.stages[name].plan.State).String())
		}
	}
	return lines
}

// scroller is a pane that shows a part of its lines.
type scroller struct{ from int }

// window is the part of all lines that is shown in h, and moves from into its bounds.
func (s *scroller) window(all []string, h int) []string {
	s.from = max(0, min(s.from, len(all)-h))
	return all[s.from:min(len(all), s.from+max(h, 0))]
}

func (m *model) page() int { return max(m.height/2, 1) }

// scroll moves what is selected, or what is shown, in the focused pane or the open dialog.
func (m *model) scroll(lines int) tea.Cmd {
	if m.dialog != nil {
		m.dialog.move(lines)
		return nil
	}
	switch m.focus {
	case stagesPane:
		m.selected = max(0, min(m.selected+lines, len(m.state.names)-1))
	case chatPane:
		m.chat.scroll(lines)
	case resultsPane:
		m.results.from += lines
	case logPane:
		m.log.scroll(lines)
	case stagePane:
		m.stage.from += lines
	}
	return nil
}

func (m *model) sideways(by int) tea.Cmd {
	switch m.focus {
	case chatPane:
		m.chat.choose(by)
	default:
		return m.turn(by)
	}
	return nil
}

// turn moves the focus through the stages and the tabs.
func (m *model) turn(by int) tea.Cmd {
	order := []pane{stagesPane, lossPane, chatPane, resultsPane, logPane}
	at := 0
	for i, p := range order {
		if p == m.focus {
			at = i
		}
	}
	m.setFocus(order[(at+by+len(order))%len(order)])
	return nil
}

func (m *model) setFocus(p pane) {
	m.focus = p
	if p != stagesPane {
		m.main = p
	}
}

func (m *model) show(p pane) tea.Cmd {
	m.setFocus(p)
	if p == chatPane && m.chat.empty() && !m.chat.input.active {
		return m.editPrompt()
	}
	return nil
}

func (m *model) openStage(i int) tea.Cmd {
	if i >= len(m.state.names) {
		m.notice = "nothing is to be uploaded; [upload] in config.toml names places"
		return nil
	}
	m.selected = i
	m.stage.from = 0
	m.setFocus(stagePane)
	return nil
}

func (m *model) toggleZoom() tea.Cmd {
	m.zoomed = !m.zoomed
	return nil
}

// click focuses what was clicked.
func (m *model) click(x, y int) {
	if m.dialog != nil || m.zoomed || m.height < stagesFrom {
		return
	}
	first := 1
	if m.width >= sideBySide || m.height >= memoryFrom {
		first = 2
	}
	switch top := 1 + len(m.top(m.width, m.height)); {
	case y >= first && y < first+len(m.state.names):
		m.openStage(y - first)
	case y == top:
		at := 1
		for _, tab := range tabs[:4] {
			if at += len(tab.name) + 3; x < at {
				m.show(tab.pane)
				return
			}
		}
	case y > top:
		m.focus = m.main
	}
}
