package tui

import (
	"fmt"
	"path/filepath"
	"strings"

	tea "charm.land/bubbletea/v2"

	"quartet/worker/client"
)

// dialog is what lies over the panes until it is closed.
type dialog interface {
	draw(m *model, w, h int) ([]string, *tea.Cursor)
	hints(m *model) [][2]string
	move(lines int)
	accept(m *model) tea.Cmd
}

// question asks for a yes or a no.
type question struct {
	title string
	lines []string // untrusted
	yes   func(*model) tea.Cmd
}

func (q *question) draw(m *model, w, h int) ([]string, *tea.Cursor) {
	lines := []string{m.titled(q.title, true, w), spaces(w)}
	for _, text := range q.lines {
		for _, part := range wrap(m.theme.safe(text), max(w-2, 1)) {
			lines = append(lines, m.theme.line(w).add(plain, " "+part).String())
		}
	}
	lines = append(lines, spaces(w), m.theme.line(w).add(accent, " "+m.keyOf("accept")).add(plain, " yes   ").add(accent, m.keyOf("close")).add(plain, " no").String())
	return m.block(lines, w, h), nil
}

func (q *question) hints(m *model) [][2]string {
	return [][2]string{{m.keyOf("accept"), "yes"}, {m.keyOf("close"), "no"}}
}

func (q *question) move(int) {}

func (q *question) accept(m *model) tea.Cmd {
	m.dialog = nil
	return q.yes(m)
}

// helpList is the list of all keys.
type helpList struct{ scroller }

func (m *model) openHelp() tea.Cmd {
	m.dialog = &helpList{}
	return nil
}

func (d *helpList) draw(m *model, w, h int) ([]string, *tea.Cursor) {
	t := m.theme
	var all []string
	for where, name := range placeNames {
		all = append(all, m.titled(name, false, w))
		for _, b := range m.keys {
			if b.where != place(where) {
				continue
			}
			l := t.line(w).add(accent, " "+strings.Join(b.keys, " ")).to(max(20, 0))
			for i, part := range wrap(b.help, max(w-21, 10)) {
				if i > 0 {
					all = append(all, l.String())
					l = t.line(w).to(20)
				}
				l.add(plain, " "+part)
			}
			if w >= 100 {
				l.right(dim, b.action+" ")
			}
			all = append(all, l.String())
		}
	}
	all = append(all, t.line(w).add(dim, " [keys] in config.toml gives actions other keys, as in: "+bindings()[0].action+` = ["?", "f1"]`).String())
	return m.block(d.window(all, h), w, h), nil
}

func (d *helpList) hints(m *model) [][2]string {
	return [][2]string{{m.keyOf("down"), "down"}, {m.keyOf("page_down"), "page"}, {m.keyOf("close"), "close"}}
}

func (d *helpList) move(lines int) { d.from = max(d.from+lines, 0) }

func (d *helpList) accept(m *model) tea.Cmd {
	m.dialog = nil
	return nil
}

// chatList is the list of former chats.
type chatList struct {
	items []exchange
	at    int
}

func (d *chatList) draw(m *model, w, h int) ([]string, *tea.Cursor) {
	t := m.theme
	lines := []string{m.titled("Former chats", true, w)}
	if len(d.items) == 0 {
		lines = append(lines, t.line(w).add(dim, " none yet; "+m.keyOf("close")+" closes, "+m.keyOf("prompt")+" writes a prompt").String())
	}
	from := max(0, d.at-(h-2))
	for i, e := range d.items[min(from, len(d.items)):] {
		r := plain
		if from+i == d.at {
			r = chosen
		}
		l := t.line(w).add(dim, " "+e.Time.Local().Format("2006-01-02 15:04")+" ").add(r, t.safe(e.Prompt))
		if e.Vote != "" {
			l.right(good, "vote: "+t.safe(e.Vote)+" ")
		}
		lines = append(lines, l.String())
	}
	return m.block(lines, w, h), nil
}

func (d *chatList) hints(m *model) [][2]string {
	return [][2]string{{m.keyOf("accept"), "open"}, {m.keyOf("close"), "close"}}
}

func (d *chatList) move(lines int) { d.at = max(0, min(d.at+lines, len(d.items)-1)) }

func (d *chatList) accept(m *model) tea.Cmd {
	m.dialog = nil
	if len(d.items) > 0 && !m.chat.busy() {
		m.chat.exchange, m.chat.voted, m.chat.order = d.items[d.at].copy(), true, []int{0, 1, 2, 3}
		m.chat.sampling, m.chat.race = m.chat.exchange.Sampling, m.chat.exchange.Race
	}
	return nil
}

// welcome is the first screen of a folder without config.toml.
type welcome struct{ at int }

// demoFolder is where the demo's workspace is made.
const demoFolder = "quartet-demo"

func (d *welcome) choices(m *model) [][3]string {
	return [][3]string{
		{"d", "the demo in ./" + demoFolder, "a Phi of 2.5 M parameters and 400 rows, inside the program: all stages in half a minute, without network or GPU"},
		{"c", "a config.toml here", "phi-2's settings with a comment on each, to point at your model and your rows; nothing runs yet"},
		{m.keyOf("quit"), "leave", ""},
	}
}

func (d *welcome) draw(m *model, w, h int) ([]string, *tea.Cursor) {
	t := m.theme
	lines := []string{m.titled("There is no config.toml in this folder", true, w), spaces(w)}
	for i, c := range d.choices(m) {
		r := plain
		if i == d.at {
			r = chosen
		}
		lines = append(lines, t.line(w).add(accent, "  "+c[0]+"  ").add(r, c[1]).String())
		for _, part := range wrap(c[2], max(w-6, 1)) {
			lines = append(lines, t.line(w).add(dim, "     "+part).String())
		}
	}
	return m.block(lines, w, h), nil
}

func (d *welcome) hints(m *model) [][2]string {
	return [][2]string{{"d", "demo"}, {"c", "config.toml"}, {m.keyOf("quit"), "leave"}}
}

func (d *welcome) move(lines int) { d.at = max(0, min(d.at+lines, 2)) }

func (d *welcome) accept(m *model) tea.Cmd {
	cmd, _ := d.pressed(m, d.choices(m)[d.at][0])
	return cmd
}

// madeMsg is a workspace that was made.
type madeMsg struct {
	dir string
	run bool
	err error
}

func (d *welcome) pressed(m *model, key string) (tea.Cmd, bool) {
	dir, o := m.dir, m.o
	switch key {
	case "d":
		return func() tea.Msg {
			dir := filepath.Join(dir, demoFolder)
			return madeMsg{dir, true, o.MakeDemo(dir)}
		}, true
	case "c":
		return func() tea.Msg { return madeMsg{dir, false, o.WriteConfig(dir)} }, true
	case m.keyOf("quit"), "q":
		return m.leave(), true
	}
	return nil, false
}

// made goes on in a workspace that was made.
func (m *model) made(msg madeMsg) {
	if msg.err != nil {
		m.notice = msg.err.Error()
		return
	}
	m.dir, m.dialog = msg.dir, nil
	m.readConfig()
	m.restyle()
	if msg.run {
		m.first = &client.RunRequest{}
	}
	m.open()
	if !msg.run {
		m.notice = fmt.Sprintf("wrote config.toml; %s edits it, %s runs everything", m.keyOf("settings"), m.keyOf("run_all"))
	}
}
