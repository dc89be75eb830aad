package tui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"quartet/visible"
	"quartet/worker/client"
)

// key does what a key is for where the focus is.
func (m *model) key(k tea.KeyPressMsg) tea.Cmd {
	m.notice, m.noticed = "", 0
	if k.String() == "alt+esc" { // escape pressed twice, of which tmux has made one piece
		esc := tea.KeyPressMsg{Code: tea.KeyEscape}
		return tea.Sequence(m.key(esc), m.key(esc))
	}
	where := everywhere
	switch {
	case m.dialog != nil && m.text() == nil:
		where = inDialog
	case m.text() != nil:
		where = typing
	default:
		where = map[pane]place{lossPane: inLoss, chatPane: inChat, logPane: inLog}[m.focus]
	}
	name := k.String()
	if name == " " {
		name = "space"
	}
	if where == inDialog {
		if d, ok := m.dialog.(interface {
			pressed(*model, string) (tea.Cmd, bool)
		}); ok {
			if cmd, done := d.pressed(m, name); done {
				return cmd
			}
		}
	}
	if b := find(m.keys, where, name); b != nil {
		return b.do(m)
	}
	if where == inDialog {
		if b := find(m.keys, everywhere, name); b != nil && (strings.HasSuffix(b.action, "up") || strings.HasSuffix(b.action, "down") || b.action == "top" || b.action == "bottom" || b.action == "quit") {
			return b.do(m)
		}
	}
	if text := m.text(); text != nil && text.key(k) {
		if text == &m.log.filter {
			m.log.back = 0
		}
	}
	return nil
}

// text is the text that is being written, nil for none.
func (m *model) text() *input {
	if d, ok := m.dialog.(interface{ text() *input }); ok {
		if in := d.text(); in != nil && in.active {
			return in
		}
	}
	if m.dialog != nil {
		return nil
	}
	for p, in := range map[pane]*input{chatPane: &m.chat.input, logPane: &m.log.filter} {
		if m.focus == p && in.active {
			return in
		}
	}
	return nil
}

func (m *model) newLine() tea.Cmd {
	if text := m.text(); text == &m.chat.input {
		text.insert("\n")
	}
	return nil
}

func (m *model) leaveText() tea.Cmd {
	if text := m.text(); text != nil {
		text.active = false
	}
	m.editing = nil
	return nil
}

// acceptText sends the prompt, or takes a filter or a value over.
func (m *model) acceptText() tea.Cmd {
	text := m.text()
	text.active = false
	if m.dialog != nil {
		return m.dialog.accept(m)
	}
	if text == &m.chat.input {
		if strings.TrimSpace(text.text()) == "" {
			return nil
		}
		cmd := m.ask(text.text(), variants)
		if m.chat.busy() {
			text.set("")
		} else {
			text.active = true // there is no worker yet: nothing that was written is lost
		}
		return cmd
	}
	return nil
}

func (m *model) accept() tea.Cmd { return m.dialog.accept(m) }

func (m *model) closeDialog() tea.Cmd {
	if _, ok := m.dialog.(*welcome); ok {
		return m.leave()
	}
	m.dialog = nil
	return nil
}

func (m *model) leave() tea.Cmd { return m.replies.leave() }

// later runs a request outside Update and says how it ended.
func (m *model) later(what string, request func(ctx context.Context, worker Worker) error) tea.Cmd {
	if why := m.noWorker(); why != "" {
		m.notice = why
		return nil
	}
	ctx, worker := m.ctx, m.worker
	return func() tea.Msg {
		if err := request(ctx, worker); err != nil {
			return doneMsg{err.Error()}
		}
		return doneMsg{what}
	}
}

// begin asks for a run.
func (m *model) begin(r client.RunRequest) tea.Cmd {
	if m.opening && !m.o.Replay {
		m.first, m.notice = &r, "the worker is being started; the run begins with it"
		return nil
	}
	m.asked = &r
	return m.later("started", func(ctx context.Context, w Worker) error { return w.Run(ctx, r) })
}

func (m *model) runStale() tea.Cmd {
	if m.state.busy && !m.o.Replay {
		m.notice = "a run is at work; " + m.keyOf("cancel") + " cancels it"
		return nil
	}
	return m.begin(client.RunRequest{})
}

// rerun asks before it runs the selected stage anew: what follows becomes stale.
func (m *model) rerun(on bool) tea.Cmd {
	if why := m.noWorker(); why != "" {
		m.notice = why
		return nil
	}
	if m.state.busy {
		m.notice = "a run is at work; " + m.keyOf("cancel") + " cancels it"
		return nil
	}
	name := m.chosenStage()
	stages := []string{name}
	after := m.state.affected(name)
	if on {
		stages = append(stages, after...)
	}
	st := m.state.stages[name]
	q := &question{title: "Rerun " + name + "?", yes: func(m *model) tea.Cmd { return m.begin(client.RunRequest{Stages: stages, Force: true}) }}
	if st.plan.State == "fresh" {
		q.lines = append(q.lines, name+" is fresh: its inputs and settings are unchanged, so that the result will be the same")
		if st.plan.Reason != "" {
			q.lines = append(q.lines, st.plan.Reason)
		}
	} else if st.plan.Reason != "" {
		q.lines = append(q.lines, name+" is "+st.plan.State+": "+st.plan.Reason)
	}
	if len(after) > 0 && !on {
		q.lines = append(q.lines, "becomes stale, if the result differs: "+strings.Join(after, ", "))
	} else if on && len(after) > 0 {
		q.lines = append(q.lines, "runs after it: "+strings.Join(after, ", "))
	}
	if name == "lora" && st.plan.State == "fresh" {
		q.lines = append(q.lines, "the former adapter, curve and results go into the history, as many as [history] keep says")
	}
	if st.plan.State == "missing" || st.plan.State == "" {
		return m.begin(client.RunRequest{Stages: stages, Force: on})
	}
	m.dialog = q
	return nil
}

// affected are the stages that depend on a stage.
func (s *state) affected(name string) []string {
	after := s.names[slices.Index(s.names, name)+1:]
	switch name {
	case "quantize":
		return slices.DeleteFunc(slices.Clone(after), func(other string) bool { return other == "lora" || other == "lora_quantize" })
	case uploadStage:
		return nil
	}
	return after
}

// cancel ends the answers under way, or else the run; a run that would lose work is asked about.
func (m *model) cancel() tea.Cmd {
	if m.chat.busy() && (m.focus == chatPane || !m.state.busy) {
		m.chat.end()
		m.notice = "the answers were cancelled"
		return nil
	}
	if !m.state.busy {
		m.notice = "nothing runs"
		return nil
	}
	at := m.state.at()
	cancel := func(m *model) tea.Cmd {
		return m.later("cancelling", func(ctx context.Context, w Worker) error { return w.Cancel(ctx) })
	}
	if keeps[at] != "" {
		return cancel(m)
	}
	m.dialog = &question{title: "Cancel " + at + "?", lines: []string{at + " keeps no checkpoint: it starts over the next time. Stages that are done stay."}, yes: cancel}
	return nil
}

func (m *model) askStop() tea.Cmd {
	if m.worker == nil || m.o.Replay {
		return m.leave()
	}
	q := &question{title: "Stop the worker and leave?", yes: func(m *model) tea.Cmd {
		ctx, worker := m.ctx, m.worker
		return func() tea.Msg {
			if err := worker.Stop(ctx); err != nil {
				return doneMsg{err.Error()}
			}
			return tea.QuitMsg{}
		}
	}}
	q.lines = []string{"it is idle; its memory is freed"}
	if at := m.state.at(); at != "" {
		q.lines = []string{at + " is at work; " + afterStop(at)}
	}
	m.dialog = q
	return nil
}

// copy copies the selected answer, the log's lines, or the table.
func (m *model) copy() tea.Cmd {
	switch m.focus {
	case chatPane:
		text := m.chat.exchange.Answers[m.chat.order[m.chat.selected]].Text
		return m.copyText(visible.Text(strings.TrimSpace(text)), m.chat.name(m.chat.selected))
	case resultsPane:
		if r := m.state.results; r != nil {
			return m.copyText(r.Table(120, false), "the table")
		}
	case stagesPane, stagePane:
		return m.copyText(m.state.stages[m.chosenStage()].failure, "the reason")
	case logPane:
		var out strings.Builder
		for _, l := range m.state.lines {
			fmt.Fprintf(&out, "%s %s %s\n", l.at.Local().Format("15:04:05"), l.stage, l.text)
		}
		return m.copyText(m.theme.safeLines(out.String()), "the log")
	}
	return m.copyText("", "")
}

func (m *model) editPrompt() tea.Cmd {
	if m.o.Replay {
		m.notice = m.noWorker()
		return nil
	}
	m.chat.input.active = true
	return nil
}

func (m *model) editFilter() tea.Cmd {
	m.log.filter.active = true
	return nil
}

func (m *model) regenerate(all bool) tea.Cmd {
	c := &m.chat
	if c.empty() {
		return m.editPrompt()
	}
	if all {
		return m.ask(c.exchange.Prompt, variants)
	}
	if c.busy() {
		m.notice = "answers are under way; " + m.keyOf("cancel") + " cancels them"
		return nil
	}
	return m.ask(c.exchange.Prompt, []string{variants[c.order[c.selected]]})
}

func (m *model) toggleRace() tea.Cmd {
	m.chat.race = !m.chat.race
	return nil
}

func (m *model) toggleDiff() tea.Cmd {
	m.chat.diff = !m.chat.diff
	return nil
}

func (m *model) toggleSync() tea.Cmd {
	m.chat.alone = !m.chat.alone
	m.notice = map[bool]string{true: "each answer scrolls alone", false: "the answers scroll together"}[m.chat.alone]
	return nil
}

func (m *model) toggleBlind() tea.Cmd {
	c := &m.chat
	c.blind, c.voted = !c.blind, false
	c.order = []int{0, 1, 2, 3}
	if c.blind {
		m.notice = "blind from the next prompt on: names and timings are hidden until you vote"
		c.voted = true
	}
	return nil
}

func (m *model) vote() tea.Cmd {
	c := &m.chat
	switch {
	case !c.blind || c.empty():
		m.notice = "votes are cast blind; " + m.keyOf("blind") + " hides the names"
		return nil
	case c.voted:
		m.notice = "this prompt has its vote"
		return nil
	case c.busy():
		m.notice = "wait until all have answered"
		return nil
	}
	winner := variants[c.order[c.selected]]
	c.voted = true
	c.tally[winner]++
	c.exchange.Vote = winner
	for i := range c.session {
		if c.session[i].Time.Equal(c.exchange.Time) {
			c.session[i].Vote = winner
		}
	}
	m.notice = "a vote for " + winner
	if c.folder != "" {
		go save(c.folder, c.exchange.copy(), m.post)
	}
	return nil
}

func (m *model) openHistory() tea.Cmd {
	folder := m.chat.folder
	if folder == "" {
		m.notice = "no chats are kept without a workspace"
		return nil
	}
	return func() tea.Msg {
		items, err := readChats(folder)
		if err != nil {
			return doneMsg{err.Error()}
		}
		return historyMsg{items}
	}
}

// export writes the session's chats as Markdown and JSON beside the chats.
func (m *model) export() tea.Cmd {
	c := &m.chat
	if len(c.session) == 0 || c.folder == "" {
		m.notice = "nothing was asked yet"
		return nil
	}
	var session []exchange
	for _, e := range c.session {
		session = append(session, e.copy())
	}
	folder, name := c.folder, "session-"+m.now().UTC().Format("20060102-150405")
	return func() tea.Msg {
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetIndent("", " ")
		err := e.Encode(session)
		if err == nil {
			err = write(folder, name+".json", text.Bytes())
		}
		if err == nil {
			err = write(folder, name+".md", markdown(session))
		}
		if err != nil {
			return doneMsg{"export: " + err.Error()}
		}
		return doneMsg{"wrote " + filepath.Join(folder, name) + ".md and .json"}
	}
}
