package tui

import (
	"fmt"
	"path/filepath"
)

// header is the first line: the run, the device, the worker and who else looks on.
func (m *model) header(w int) string {
	t, info := m.theme, m.state.info
	l := t.line(w).add(strong, " quartet ")
	name := info.Name
	if name == "" {
		name = filepath.Base(m.dir)
	}
	l.add(accent, t.safe(name))
	if info.Device != "" {
		l.add(dim, " "+t.glyph.dot+" "+t.safe(info.Device))
	}
	clients := ""
	if info.Clients > 1 {
		clients = fmt.Sprintf(" %s %d clients", t.glyph.dot, info.Clients)
	}
	switch stage := m.state.at(); {
	case m.o.Replay:
		return l.add(dim, " "+t.glyph.dot+" recording of "+t.safe(m.dir)).right(dim, m.clock.Local().Format("15:04:05")+" ").String()
	case m.lost != "":
		offer := m.keyOf("worker") + " starts one "
		if m.first != nil {
			offer = m.keyOf("worker") + " resumes "
		}
		why := " " + t.glyph.dot + " no worker: " + t.safe(m.lost)
		return l.add(bad, t.fit(why, max(w-l.used-columns(offer)-1, 0))).right(accent, offer).String()
	case m.opening:
		return l.add(warn, " "+t.glyph.dot+" starting the worker").String()
	case m.worker == nil:
		return l.add(dim, " "+t.glyph.dot+" no workspace yet").String()
	case stage != "":
		l.add(good, fmt.Sprintf(" %s worker %d runs %s", t.glyph.dot, info.PID, stage))
	case m.state.busy:
		l.add(good, fmt.Sprintf(" %s worker %d at work", t.glyph.dot, info.PID))
	default:
		l.add(dim, fmt.Sprintf(" %s worker %d idle", t.glyph.dot, info.PID))
	}
	l.add(dim, clients)
	if m.state.missed > 0 {
		l.add(warn, fmt.Sprintf(" %s %d updates skipped", t.glyph.dot, m.state.missed))
	}
	return l.right(dim, t.safe(m.dir)+" ").String()
}

// footer is the last line: what the last key did, or the keys that matter where the focus is.
func (m *model) footer(w int) string {
	t := m.theme
	l := t.line(w).add(plain, " ")
	if m.notice != "" {
		return l.add(warn, t.safe(m.notice)).String()
	}
	var hints [][2]string
	switch {
	case m.dialog != nil:
		hints = m.dialog.hints(m)
	case m.text() != nil:
		hints = [][2]string{{m.keyOf("send"), "send"}, {m.keyOf("newline"), "new line"}, {m.keyOf("stop_writing"), "done"}}
	default:
		switch m.focus {
		case stagesPane, stagePane:
			hints = [][2]string{{m.keyOf("run"), "rerun"}, {m.keyOf("run_on"), "and what follows"}}
		case lossPane:
			hints = [][2]string{{m.keyOf("x_axis"), "x axis"}, {m.keyOf("series"), "series"}, {m.keyOf("log_y"), "log"}}
		case chatPane:
			hints = [][2]string{{m.keyOf("prompt"), "prompt"}, {m.keyOf("regenerate_all"), "again"}, {m.keyOf("race"), "race"}, {m.keyOf("diff"), "diff"}, {m.keyOf("blind"), "blind"}, {m.keyOf("export"), "export"}}
		case logPane:
			hints = [][2]string{{m.keyOf("filter"), "filter"}, {m.keyOf("errors"), "errors"}}
		}
		hints = append(hints, [2]string{m.keyOf("run_all"), "run stale"})
		if m.state.busy || m.chat.busy() {
			hints = append(hints, [2]string{m.keyOf("cancel"), "cancel"})
		}
		hints = append(hints, [2]string{m.keyOf("next"), "focus"}, [2]string{m.keyOf("zoom"), "zoom"}, [2]string{m.keyOf("help"), "help"}, [2]string{m.keyOf("quit"), "leave"})
	}
	room := w
	takes := func(h [2]string) int { return columns(h[0]) + columns(h[1]) + 3 }
	for _, h := range hints[max(len(hints)-2, 0):] { // help and how to leave have their place
		room -= takes(h)
	}
	for i, h := range hints {
		if i >= len(hints)-2 {
			room += takes(h)
		}
		if l.used+takes(h) > room {
			continue
		}
		l.add(accent, h[0]).add(dim, " "+h[1]+"  ")
	}
	return l.String()
}
