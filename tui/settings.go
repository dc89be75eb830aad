package tui

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"

	"quartet/config"
)

// form is a list of keys and values, of which one is edited at a time.
type form struct {
	title   string
	rows    []row
	at      int
	value   input
	trouble string // why the last value was refused; several lines
	save    func(m *model, f *form, r *row, value string) tea.Cmd
}

// row is one setting.
type row struct{ key, value, note string }

func (f *form) text() *input { return &f.value }

func (f *form) draw(m *model, w, h int) (lines []string, cursor *tea.Cursor) {
	t := m.theme
	lines = []string{m.titled(f.title, true, w)}
	var below []string
	for text := range strings.SplitSeq(strings.TrimRight(f.trouble, "\n"), "\n") {
		if text == "" {
			continue
		}
		for _, part := range wrap(t.safe(text), max(w-2, 1)) {
			below = append(below, t.line(w).add(bad, " "+part).String())
		}
	}
	below = below[:min(len(below), h/2)]
	room := max(h-1-len(below), 1)
	from := max(0, min(f.at-room/2, len(f.rows)-room))
	left := min(38, w/2)
	for i := from; i < min(len(f.rows), from+room); i++ {
		r := f.rows[i]
		l := t.line(w)
		look := plain
		if i == f.at {
			l.add(accent, t.glyph.mark)
			look = strong
		}
		l.to(1).add(look, r.key).to(left)
		if i == f.at && f.value.active {
			text, c := f.value.draw(t, w-left-1, 1)
			cursor = shift(c, left, len(lines))
			l.add(accent, text[0])
		} else {
			l.add(plain, t.safe(r.value))
			l.right(dim, r.note+" ")
		}
		lines = append(lines, l.String())
	}
	return m.block(append(m.block(lines, w, 1+room), below...), w, h), cursor
}

func (f *form) hints(m *model) [][2]string {
	if f.value.active {
		return [][2]string{{m.keyOf("send"), "save"}, {m.keyOf("stop_writing"), "leave it"}}
	}
	return [][2]string{{m.keyOf("accept"), "edit"}, {m.keyOf("close"), "close"}}
}

func (f *form) move(lines int) {
	f.at = max(0, min(f.at+lines, len(f.rows)-1))
	f.trouble = ""
}

// accept begins to edit a value, or saves it.
func (f *form) accept(m *model) tea.Cmd {
	if len(f.rows) == 0 {
		return nil
	}
	r := &f.rows[f.at]
	if m.editing != f {
		m.editing = f
		f.value.set(r.value)
		f.value.active = true
		return nil
	}
	m.editing = nil
	return f.save(m, f, r, f.value.text())
}

// openSettings is the form of config.toml.
func (m *model) openSettings() tea.Cmd {
	path := filepath.Join(m.dir, "config.toml")
	if m.o.Replay {
		m.notice = m.noWorker()
		return nil
	}
	return func() tea.Msg {
		text, err := os.ReadFile(path)
		if err != nil {
			return doneMsg{"settings: " + err.Error()}
		}
		f := &form{title: "Settings: " + path, save: saveSetting}
		values, err := config.Values(path, text)
		if err != nil {
			f.trouble = err.Error()
		}
		for _, v := range values {
			note := strings.Join(v.Stages, ", ")
			if note != "" {
				note = "changes " + note
			}
			f.rows = append(f.rows, row{v.Key, v.Text, note})
		}
		return askMsg{f}
	}
}

// savedMsg is how writing a setting ended.
type savedMsg struct {
	form  *form
	at    int
	value string
	err   error
}

// saveSetting writes one value into config.toml, whose other bytes stay as they are. A value that is refused is not written.
func saveSetting(m *model, f *form, r *row, value string) tea.Cmd {
	path, key, at := filepath.Join(m.dir, "config.toml"), r.key, f.at
	return func() tea.Msg {
		text, err := os.ReadFile(path)
		if err == nil {
			text, err = config.Set(path, text, key, value)
		}
		if err == nil {
			err = write(filepath.Dir(path), filepath.Base(path), text)
		}
		return savedMsg{f, at, value, err}
	}
}

func (m *model) saved(msg savedMsg) tea.Cmd {
	if msg.err != nil {
		msg.form.trouble = msg.err.Error()
		return nil
	}
	msg.form.trouble = ""
	msg.form.rows[msg.at].value = msg.value
	m.notice = "saved; the stages that it changes are stale now"
	m.readConfig()
	m.restyle()
	return m.plan()
}

// openSampling is the form of how answers are drawn, of this session alone.
func (m *model) openSampling() tea.Cmd {
	s := m.chat.sampling
	m.dialog = &form{title: "Sampling of the next answers", rows: []row{
		{"temperature", fmt.Sprint(s.Temperature), "0 takes the likeliest"},
		{"top_k", fmt.Sprint(s.TopK), "0 for all"},
		{"top_p", fmt.Sprint(s.TopP), "1 for all"},
		{"repetition_penalty", fmt.Sprint(s.RepetitionPenalty), "1 for none"},
		{"max_new_tokens", fmt.Sprint(s.MaxNewTokens), "tokens of an answer"},
		{"seed", fmt.Sprint(s.Seed), "the same for all four"},
	}, save: saveSampling}
	return nil
}

// saveSampling takes one value over, or says what is allowed.
func saveSampling(m *model, f *form, r *row, value string) tea.Cmd {
	s := m.chat.sampling
	number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	whole := err == nil && number == float64(int64(number)) && number >= 0 && number < 1<<53
	allowed := ""
	switch r.key {
	case "temperature":
		s.Temperature, allowed = number, "a number from 0 up to 100"
		if err == nil && number >= 0 && number <= 100 {
			allowed = ""
		}
	case "top_p":
		s.TopP, allowed = number, "a number above 0, up to 1"
		if err == nil && number > 0 && number <= 1 {
			allowed = ""
		}
	case "repetition_penalty":
		s.RepetitionPenalty, allowed = number, "a number above 0, up to 10"
		if err == nil && number > 0 && number <= 10 {
			allowed = ""
		}
	default:
		if !whole || r.key == "max_new_tokens" && (number < 1 || number > 1<<20) || r.key == "top_k" && number > 1<<30 {
			allowed = "a whole number, 0 or above"
			if r.key == "max_new_tokens" {
				allowed = "a whole number, 1 or above"
			}
			break
		}
		switch r.key {
		case "top_k":
			s.TopK = int(number)
		case "max_new_tokens":
			s.MaxNewTokens = int(number)
		case "seed":
			s.Seed = uint64(number)
		}
	}
	if allowed != "" {
		f.trouble = r.key + " cannot be " + value + "; allowed: " + allowed
		return nil
	}
	m.chat.sampling, r.value, f.trouble = s, strings.TrimSpace(value), ""
	return nil
}
