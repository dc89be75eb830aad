package tui

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"quartet/config"
	"quartet/worker/client"
)

// variants are the four models in order.
var variants = []string{"base", "quantized", "lora", "lora_quantized"}

// narrowest is the least width of a column of answers; below it one answer is shown at a time.
const narrowest = 22

// answer is one variant's answer as it comes.
type answer struct {
	Variant string             `json:"variant"`
	State   string             `json:"state"` // of client.ChatEvent
	Text    string             `json:"text"`  // untrusted
	Reason  string             `json:"reason,omitempty"`
	Timing  *client.ChatTiming `json:"timing,omitempty"`

	back    int // lines that the view is above the end
	flow    flow
	wrapped []string // what flow made of Text
	marks   marks
}

func (a *answer) ended() bool {
	return slices.Contains([]string{"done", "failed", "canceled"}, a.State)
}

// chat is the chat pane: one prompt and an answer of each variant.
type chat struct {
	input    input
	exchange exchange
	order    []int // which answer stands in which column
	selected int   // column
	sampling client.Sampling
	race     bool
	diff     bool
	alone    bool // each answer scrolls by itself
	blind    bool
	voted    bool
	tally    map[string]int
	session  []exchange // what was asked since the workbench began
	folder   string     // where chats are kept, "" for nowhere

	asked  int // number of the request at work
	cancel context.CancelFunc
}

// answersMsg is pieces of answers to a request, and its end.
type answersMsg struct {
	asked  int
	events []client.ChatEvent
	over   bool
	err    error
}

func newChat() chat {
	c := chat{tally: map[string]int{}, order: []int{0, 1, 2, 3}, sampling: client.Sampling{TopP: 1, RepetitionPenalty: 1, MaxNewTokens: 64, Seed: 42}}
	c.exchange = newExchange("")
	return c
}

func samplingOf(c *config.Config) client.Sampling {
	e := c.Evaluation
	return client.Sampling{Temperature: e.Temperature, TopK: e.TopK, TopP: e.TopP, RepetitionPenalty: e.RepetitionPenalty, MaxNewTokens: e.MaxNewTokens, Seed: c.Seed}
}

// load points the chat at a workspace's folder of chats.
func (c *chat) load(dir string, settings *config.Config) {
	c.folder = ""
	if settings != nil {
		results := settings.Paths.Results
		if !filepath.IsAbs(results) {
			results = filepath.Join(dir, results)
		}
		c.folder = filepath.Join(results, "chats")
	}
}

func (c *chat) empty() bool { return c.exchange.Prompt == "" }
func (c *chat) busy() bool  { return c.cancel != nil }

// end stops waiting for answers.
func (c *chat) end() {
	if c.cancel != nil {
		c.cancel()
	}
	c.cancel = nil
	for _, a := range c.exchange.Answers {
		if c.exchange.Prompt != "" && !a.ended() && a.State != "" {
			a.State = "canceled"
		}
	}
}

func (c *chat) title(m *model) string {
	parts := []string{"one after another"}
	if c.race {
		parts[0] = "race: timings not comparable"
	}
	if s := c.sampling; s.Temperature > 0 {
		parts = append(parts, fmt.Sprintf("temperature %g, seed %d", s.Temperature, s.Seed))
	} else {
		parts = append(parts, "greedy")
	}
	if c.diff {
		parts = append(parts, "diff to base")
	}
	if c.blind {
		parts = append(parts, "blind")
	}
	return strings.Join(parts, " · ")
}

func (c *chat) choose(by int) { c.selected = max(0, min(c.selected+by, len(variants)-1)) }

func (c *chat) scroll(lines int) {
	for i, a := range c.exchange.Answers {
		if !c.alone || i == c.order[c.selected] {
			a.back = max(0, min(a.back-lines, len(a.wrapped)))
		}
	}
}

// ask sends the prompt to some variants.
func (m *model) ask(prompt string, which []string) tea.Cmd {
	if why := m.noWorker(); why != "" {
		m.notice = why
		return nil
	}
	c := &m.chat
	c.end()
	if len(which) == len(variants) {
		c.exchange = newExchange(prompt)
		c.voted = false
		c.order = []int{0, 1, 2, 3}
		if c.blind {
			c.order = rand.Perm(len(variants))
		}
	}
	c.exchange.Sampling, c.exchange.Race = c.sampling, c.race
	for _, a := range c.exchange.Answers {
		if slices.Contains(which, a.Variant) {
			*a = answer{Variant: a.Variant, State: "waiting"}
		}
	}
	c.asked++
	ctx, cancel := context.WithCancel(m.ctx)
	c.cancel = cancel
	asked, worker, post, sampling := c.asked, m.worker, m.soon, c.sampling
	request := client.ChatRequest{Prompt: prompt, Variants: which, Sampling: &sampling, Race: c.race}
	return func() tea.Msg {
		err := worker.Chat(ctx, request, func(e client.ChatEvent) {
			post(answersMsg{asked: asked, events: []client.ChatEvent{e}})
		})
		post(answersMsg{asked: asked, over: true, err: err})
		return nil
	}
}

// take puts pieces of answers where they belong.
func (c *chat) take(msg answersMsg, m *model) {
	if msg.asked != c.asked || c.cancel == nil {
		return
	}
	for _, e := range msg.events {
		for _, a := range c.exchange.Answers {
			if a.Variant != e.Variant {
				continue
			}
			a.State = e.State
			a.Text += e.Text
			if e.Reason != "" {
				a.Reason = e.Reason
			}
			if e.Timing != nil {
				a.Timing = e.Timing
			}
		}
	}
	if !msg.over {
		return
	}
	for _, a := range c.exchange.Answers {
		if msg.err != nil && !a.ended() {
			a.State, a.Reason = "failed", msg.err.Error()
		}
	}
	c.end()
	c.session = slices.DeleteFunc(c.session, func(e exchange) bool { return e.Time.Equal(c.exchange.Time) })
	c.session = append(c.session, c.exchange)
	if c.folder != "" {
		go save(c.folder, c.exchange.copy(), m.post)
	}
}

// lines draw the pane: the prompt, then the answers in columns, each under its name and above its timings.
func (c *chat) lines(m *model, w, h int) (lines []string, cursor *tea.Cursor) {
	t := m.theme
	if m.o.Replay {
		return m.advice(w, "a recording holds no chats; press "+m.keyOf("loss")+" for the loss, "+m.keyOf("results")+" for the results"), nil
	}
	if c.input.active || c.empty() {
		rows := max(1, min(4, h/4))
		text, cur := c.input.draw(t, w-4, rows)
		for i, s := range text {
			mark := "   "
			if i == 0 {
				mark = " " + t.paint(accent, t.glyph.mark) + " "
			}
			lines = append(lines, mark+s+" ")
		}
		if c.input.active {
			cursor = shift(cur, 3, 0)
			if c.empty() {
				lines = append(lines, m.advice(w, fmt.Sprintf("%s sends the prompt to all four variants; %s, then %s lists former chats", m.keyOf("send"), m.keyOf("stop_writing"), m.keyOf("history")))...)
			}
		} else {
			lines = m.advice(w, fmt.Sprintf("press %s to write a prompt that all four variants answer; %s lists former chats", m.keyOf("prompt"), m.keyOf("history")))
		}
	} else {
		lines = append(lines, t.line(w).add(accent, " "+t.glyph.mark+" ").add(strong, t.safe(c.exchange.Prompt)).String())
	}
	h -= len(lines)
	if c.empty() {
		return lines, cursor
	}
	shown := []int{0, 1, 2, 3}
	if m.zoomed || (w-3)/4 < narrowest {
		shown = []int{c.selected}
	}
	if len(shown) == 1 && h > 3 {
		lines = append(lines, c.names(m, w))
		h--
	}
	width := (w - len(shown) + 1) / len(shown)
	columns := make([][]string, len(shown))
	for i, at := range shown {
		if i == len(shown)-1 {
			width = w - (len(shown)-1)*(width+1)
		}
		columns[i] = c.column(m, at, width, h)
	}
	gap := t.paint(rule, t.glyph.bar)
	for y := range max(h, 0) {
		var out strings.Builder
		for i := range columns {
			if i > 0 {
				out.WriteString(gap)
			}
			out.WriteString(columns[i][y])
		}
		lines = append(lines, out.String())
	}
	return lines, cursor
}

// names are all answers in one line with how far they are, where only one of them is shown.
func (c *chat) names(m *model, w int) string {
	t := m.theme
	l := t.line(w).add(accent, " "+m.keyOf("left")+" "+m.keyOf("right")+" ")
	for at := range variants {
		mark, look := t.glyph.dot, dim
		switch a := c.exchange.Answers[c.order[at]]; {
		case a.State == "failed":
			mark, look = t.glyph.cross, bad
		case a.State == "done":
			mark, look = t.glyph.tick, good
		case a.State == "decoding":
			mark, look = t.glyph.more, accent
		}
		name := plain
		if at == c.selected {
			name = chosen
		}
		l.add(look, " "+mark).add(name, " "+c.name(at)+" ")
	}
	return l.String()
}

// name is what the column at a place is called.
func (c *chat) name(at int) string {
	if c.blind && !c.voted {
		return "answer " + string(rune('A'+at))
	}
	return variants[c.order[at]]
}

// column is one answer in exactly h lines.
func (c *chat) column(m *model, at, w, h int) []string {
	t := m.theme
	a := c.exchange.Answers[c.order[at]]
	head := t.line(w)
	r := strong
	if at == c.selected {
		r = chosen
	}
	head.add(plain, " ").add(r, " "+c.name(at)+" ").add(plain, " ")
	switch {
	case a.State == "failed":
		head.add(bad, "failed")
	case a.State == "done" && a.Timing != nil && !a.Timing.Complete:
		head.add(dim, "cut at its length")
	case a.State != "":
		head.add(dim, a.State)
	}
	if votes := c.tally[a.Variant]; votes > 0 && (!c.blind || c.voted) {
		text := fmt.Sprint(votes, " votes")
		if votes == 1 {
			text = "1 vote"
		}
		head.right(good, text)
	}
	lines := []string{head.String()}
	var foot []string
	if a.Timing != nil && (!c.blind || c.voted) {
		for _, text := range wrap(timings(a.Timing, c.exchange.Race), max(w-2, 1)) {
			foot = append(foot, t.line(w).add(dim, " "+text).String())
		}
	}
	if len(foot) > h/2 {
		foot = nil
	}
	room := max(h-1-len(foot), 0)
	if a.State == "failed" {
		for _, text := range wrap(t.safe(a.Reason), max(w-2, 1)) {
			lines = append(lines, t.line(w).add(bad, " "+text).String())
		}
	}
	a.wrapped = a.flow.lines(t, a.Text, max(w-2, 1))
	from := c.top(a, room)
	base := c.exchange.Answers[0]
	if !c.diff || a == base || base.Text == "" {
		for _, text := range a.wrapped[from:min(len(a.wrapped), from+room)] {
			lines = append(lines, t.line(w).add(plain, " ").add(plain, text).String())
		}
	} else {
		differs := a.marks.against(t, base.Text, a.Text)
		for i, text := range a.wrapped {
			l := t.line(w).add(plain, " ")
			for piece, r := range pieces(text, differs) {
				l.add(r, piece)
			}
			if i >= from && len(lines) < 1+room {
				lines = append(lines, l.String())
			}
		}
	}
	lines = m.block(lines, w, 1+room)
	return m.block(append(lines, foot...), w, h)
}

// top is the first line that is shown. While an answer grows beyond its room the view jumps by half of it, because moving
// every line for each new one costs a slow line many times the bytes of the text.
func (c *chat) top(a *answer, room int) int {
	beyond := len(a.wrapped) - room
	if beyond <= 0 {
		a.back = 0
		return 0
	}
	if a.back > 0 || a.ended() {
		a.back = min(a.back, beyond)
		if a.ended() && a.back == 0 {
			return beyond
		}
		return beyond - a.back
	}
	half := max(room/2, 1)
	return (beyond + half - 1) / half * half
}

// timings are how fast an answer came, in words.
func timings(g *client.ChatTiming, race bool) string {
	var parts []string
	if g.TTFT > 0 {
		parts = append(parts, "first "+brief(g.TTFT))
	}
	if g.Prefill > 0 {
		parts = append(parts, "prefill "+digits(g.Prefill)+"/s")
	}
	if g.Decode > 0 {
		parts = append(parts, "decode "+digits(g.Decode)+"/s")
	}
	parts = append(parts, fmt.Sprintf("%d tokens", g.Tokens))
	if g.MemoryBytes > 0 {
		parts = append(parts, size(g.MemoryBytes))
	}
	if race || g.Shared {
		parts = append(parts, "shared machine")
	}
	return strings.Join(parts, " · ")
}
