package tui

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"quartet/config"
	"quartet/event"
	"quartet/worker/client"
)

// pane is a part of the screen that can have the focus.
type pane int

const (
	stagesPane pane = iota
	lossPane
	chatPane
	resultsPane
	logPane
	stagePane // one stage in full; opened by its number
	panes
)

// tabs are the panes that share the main part of the screen, in order.
var tabs = []struct {
	pane pane
	name string
}{{lossPane, "Loss"}, {chatPane, "Chat"}, {resultsPane, "Results"}, {logPane, "Log"}, {stagePane, "Stage"}}

// far is more lines than there are.
const far = 1 << 30

// model is the workbench. It is only touched by Bubble Tea's loop.
type model struct {
	o    Options
	ctx  context.Context
	stop context.CancelFunc
	post func(tea.Msg)
	soon func(tea.Msg) // posts with the next frame of what streams, in order
	raw  func(string)  // writes a sequence to the terminal
	now  func() time.Time
	dir  string

	keys    []binding
	theme   *theme
	profile colorprofile.Profile
	dark    bool
	config  *config.Config // nil where there is none that can be read
	trouble string         // what is wrong with config.toml

	width, height int
	focus, main   pane
	zoomed        bool
	dialog        dialog // what lies over the panes, nil for nothing
	editing       *form  // whose value is being written

	worker  Worker // nil while there is none
	feed    int
	unfeed  context.CancelFunc
	lost    string             // why there is no worker, "" while there is one or it is being opened
	asked   *client.RunRequest // what the run at work was asked for here, nil for none
	first   *client.RunRequest // what is asked for once there is a worker, nil for nothing
	opening bool               // a worker is being found or started
	notice  string             // what the last key did, in the last line
	noticed int                // seconds that the notice has been there
	state   *state
	clock   time.Time // as of the last event or tick; of a replay, its own

	selected int // stage
	stage    scroller
	memory   memory
	loss     lossView
	chat     chat
	results  scroller
	log      logView

	replies replies
	content string // the last frame
	cursor  *tea.Cursor
	fresh   bool // content is up to date
}

func newModel(ctx context.Context, o Options) *model {
	m := &model{o: o, dir: o.Dir, post: func(tea.Msg) {}, raw: func(string) {}, now: o.now, keys: bindings(), dark: true, profile: profileOf(o.Environment), state: newState(), focus: lossPane, main: lossPane}
	m.ctx, m.stop = context.WithCancel(ctx)
	m.soon = func(msg tea.Msg) { m.post(msg) }
	if m.now == nil {
		m.now = time.Now
	}
	m.clock = m.now()
	m.chat = newChat()
	m.readConfig()
	m.opening = m.config != nil || o.Replay // as soon as the loop runs
	m.restyle()
	return m
}

func (m *model) close() { m.stop() }

// readConfig takes the workspace's configuration over.
func (m *model) readConfig() {
	m.config, m.trouble = nil, ""
	if m.o.Replay {
		return
	}
	c, err := config.Load(filepath.Join(m.dir, "config.toml"))
	if err != nil {
		if _, missing := os.Stat(filepath.Join(m.dir, "config.toml")); missing == nil {
			m.trouble = err.Error()
		}
		return
	}
	m.config = c
	m.keys = bindings()
	if err := rebind(m.keys, c.Keys); err != nil {
		m.keys, m.notice = bindings(), err.Error()
	}
	switch c.Workbench.Theme {
	case "dark", "light":
		m.dark = c.Workbench.Theme == "dark"
	}
	m.chat.sampling = samplingOf(c)
}

func (m *model) restyle() {
	m.theme = newTheme(m.profile, m.dark, asciiOnly(m.environ) || m.config != nil && m.config.Workbench.ASCII)
}

// tickMsg is the passing of a second while something runs.
type tickMsg struct{}

func tick() tea.Cmd { return tea.Tick(time.Second, func(time.Time) tea.Msg { return tickMsg{} }) }

// Init asks the terminal what it can do and looks for the worker.
func (m *model) Init() tea.Cmd {
	return tea.Batch(m.query(), func() tea.Msg { return startMsg{} }, tick())
}

// startMsg begins the workbench once messages can be posted.
type startMsg struct{}

func (m *model) start() {
	if m.o.Replay {
		m.open()
		return
	}
	m.memory.watch(m.ctx, m.o.GPU, m.soon)
	switch {
	case m.config != nil:
		m.open()
	case m.trouble != "":
		m.lost = m.trouble
	default:
		m.dialog = &welcome{}
	}
}

// open begins to follow a worker of the workspace.
func (m *model) open() {
	if m.unfeed != nil {
		m.unfeed()
	}
	m.feed++
	m.opening, m.lost = true, ""
	ctx, stop := context.WithCancel(m.ctx)
	m.unfeed = stop
	dir, o := m.dir, m.o
	m.chat.load(dir, m.config)
	if folder, post := m.chat.folder, m.post; folder != "" {
		go func() { post(countVotes(folder)) }()
	}
	go follow(ctx, m.feed, func(ctx context.Context) (Worker, error) { return o.Open(ctx, dir) }, m.soon)
}

func (m *model) reopen() tea.Cmd {
	if m.worker == nil || m.lost != "" {
		if m.readConfig(); m.trouble != "" {
			m.lost = m.trouble
			return nil
		}
		m.open()
		return nil
	}
	m.notice = "the worker is there"
	return nil
}

// Update takes a message. It does no I/O.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.fresh = false
	switch msg := msg.(type) {
	case startMsg:
		m.start()
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.ColorProfileMsg:
		m.profile = msg.Profile
		m.restyle()
	case tea.BackgroundColorMsg:
		if m.config == nil || m.config.Workbench.Theme == "auto" {
			m.dark = msg.IsDark()
			m.restyle()
		}
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tea.PasteMsg:
		if text := m.text(); text != nil {
			text.insert(msg.Content)
		}
	case tea.MouseWheelMsg:
		switch msg.Button {
		case tea.MouseWheelUp:
			m.scroll(-3)
		case tea.MouseWheelDown:
			m.scroll(3)
		}
	case tea.MouseClickMsg:
		m.click(msg.X, msg.Y)
	case bunchMsg:
		var cmds []tea.Cmd
		for _, one := range msg {
			_, cmd := m.Update(one)
			cmds = append(cmds, cmd)
		}
		return m, tea.Batch(cmds...)
	case openedMsg:
		if msg.feed == m.feed {
			m.worker, m.state, m.opening, m.lost = msg.worker, msg.state, false, ""
			m.selectWorking()
			if r := m.first; r != nil {
				m.first = nil
				return m, m.begin(*r)
			}
			return m, m.weigh()
		}
	case eventsMsg:
		if msg.feed == m.feed {
			return m, m.events(msg.events)
		}
	case goneMsg:
		if msg.feed == m.feed {
			m.gone(msg.err)
		}
	case plannedMsg:
		m.state.plan(msg.parts)
		return m, m.weigh()
	case weighedMsg:
		m.state.weighed(msg.parts)
	case doneMsg:
		m.notice = msg.text
	case askMsg:
		m.dialog = msg.question
	case answersMsg:
		m.chat.take(msg, m)
	case historyMsg:
		m.dialog = &chatList{items: msg.items}
	case sampleMsg:
		m.memory.take(msg)
	case tickMsg:
		faded := m.fade()
		m.fresh = !faded && !m.state.busy && !m.chat.busy() && !m.memory.aged(m.now())
		m.memory.sampling(m.state.busy || m.chat.busy(), m.state.info.PID)
		if !m.o.Replay {
			m.clock = m.now()
		}
		return m, tick()
	case madeMsg:
		m.made(msg)
	case savedMsg:
		return m, m.saved(msg)
	case tallyMsg:
		m.chat.tally = msg.tally
	case quitMsg:
		return m, tea.Quit
	default:
		m.fresh = m.replies.other(msg)
	}
	return m, nil
}

// events takes what happened, and rings where a stage ended.
func (m *model) events(all []client.Numbered) tea.Cmd {
	runs := m.state.runs
	var ended []event.Event
	for _, n := range all {
		if n.Seq <= m.state.seq {
			continue
		}
		if m.state.seq > 0 {
			m.state.missed += n.Seq - m.state.seq - 1
		}
		m.state.seq = n.Seq
		if !n.Event.Time.IsZero() && m.o.Replay {
			m.clock = n.Event.Time
		}
		m.state.apply(n.Event)
		if n.Event.Kind == event.StageDone || n.Event.Kind == event.StageFailed {
			ended = append(ended, n.Event)
		}
		if n.Event.Kind == event.StageStarted {
			m.selectWorking()
		}
	}
	var cmds []tea.Cmd
	if len(ended) > 0 {
		cmds = append(cmds, m.ring(ended[len(ended)-1]))
	}
	if m.state.runs > runs {
		m.asked = nil
	}
	if m.state.runs > runs && !m.o.Replay {
		cmds = append(cmds, m.plan())
	}
	return tea.Batch(cmds...)
}

// gone says that there is no worker, and what to press.
func (m *model) gone(err error) {
	m.worker, m.opening = nil, false
	m.lost = err.Error()
	if m.state.busy {
		m.first = cmp.Or(m.asked, &client.RunRequest{})
	}
	m.state.busy = false
	m.chat.end()
	for name, st := range m.state.stages {
		if st.running() {
			st.plan.State, st.progress, st.train = "interrupted", nil, nil
			st.failure = "the worker has gone; " + afterStop(name)
		}
	}
	if m.o.Replay {
		m.lost = ""
		m.notice = "the end of the recording; " + m.keyOf("worker") + " plays it again, " + m.keyOf("quit") + " leaves"
	}
}

// selectWorking moves the selection to the stage at work.
func (m *model) selectWorking() {
	for i, name := range m.state.names {
		if m.state.stages[name].running() {
			m.selected = i
		}
	}
}

type (
	plannedMsg struct{ parts []event.PlanPart }
	weighedMsg struct{ parts []event.PlanPart }
	doneMsg    struct{ text string }
	askMsg     struct{ question dialog }
)

// plan asks how the stages stand.
func (m *model) plan() tea.Cmd {
	worker, ctx := m.worker, m.ctx
	if worker == nil {
		return nil
	}
	return func() tea.Msg {
		parts, err := worker.Plan(ctx, client.RunRequest{})
		if err != nil {
			return doneMsg{"plan: " + err.Error()}
		}
		return plannedMsg{parts}
	}
}

// weigh asks how much the stages fetch, if they fetch anything. The hub may take its time, and may not be reached.
func (m *model) weigh() tea.Cmd {
	worker, ctx := m.worker, m.ctx
	if worker == nil || !m.state.fetches() {
		return nil
	}
	return func() tea.Msg {
		parts, err := worker.Plan(ctx, client.RunRequest{Weigh: true})
		if err != nil {
			return nil // the sizes stay unknown
		}
		return weighedMsg{parts}
	}
}

// View is the frame.
func (m *model) View() tea.View {
	if !m.fresh {
		m.content, m.cursor = m.draw()
		m.fresh = true
	}
	v := tea.NewView(m.content)
	v.AltScreen = true
	v.Cursor = m.cursor
	if m.config != nil && m.config.Workbench.Mouse {
		v.MouseMode = tea.MouseModeCellMotion
	}
	return v
}

// noticeSeconds is how long a notice takes the place of the keys.
const noticeSeconds = 8

// fade counts the seconds of a notice, and takes it away in the end.
func (m *model) fade() bool {
	if m.notice == "" {
		m.noticed = 0
		return false
	}
	if m.noticed++; m.noticed < noticeSeconds {
		return false
	}
	m.notice, m.noticed = "", 0
	return true
}

// noWorker is what a key says that needs a worker where there is none, "" where there is one.
func (m *model) noWorker() string {
	switch {
	case m.o.Replay:
		return "this is a recording: it can be looked at only"
	case m.opening:
		return "the worker is being started"
	case m.worker == nil:
		return fmt.Sprintf("there is no worker; press %s to start it", m.keyOf("worker"))
	}
	return ""
}
