package tui

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"quartet/eval"
	"quartet/event"
	"quartet/worker/client"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

// fake is a worker whose answers a test gives, and which remembers what it was asked.
type fake struct {
	mu       sync.Mutex
	snap     client.Snapshot
	events   chan client.Numbered // closed when the worker dies
	runs     []client.RunRequest
	chats    []client.ChatRequest
	canceled int
	stopped  int
	answers  map[string][]client.ChatEvent // by variant
}

func newFake() *fake {
	return &fake{events: make(chan client.Numbered, 100), snap: client.Snapshot{Info: client.Info{Name: "phi-tiny", Device: "cpu", PID: 4211, Host: "box", Clients: 1}}}
}

func (f *fake) Snapshot(context.Context) (*client.Snapshot, error) { return &f.snap, nil }

func (f *fake) Events(ctx context.Context, _ int64, visit func(client.Numbered) error) error {
	for {
		select {
		case e, ok := <-f.events:
			if !ok {
				return errors.New("connection reset by peer")
			}
			if err := visit(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fake) Plan(context.Context, client.RunRequest) ([]event.PlanPart, error) {
	return f.snap.Stages, nil
}

func (f *fake) Run(_ context.Context, r client.RunRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs = append(f.runs, r)
	return nil
}

func (f *fake) Cancel(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.canceled++
	return nil
}

func (f *fake) Chat(_ context.Context, r client.ChatRequest, visit func(client.ChatEvent)) error {
	f.mu.Lock()
	f.chats = append(f.chats, r)
	f.mu.Unlock()
	for _, v := range r.Variants {
		for _, e := range f.answers[v] {
			e.Variant = v
			visit(e)
		}
	}
	return nil
}

func (f *fake) Stop(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped++
	return nil
}

// start is when everything in the tests happens.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// bench is a workbench under test: messages go straight into Update, and commands run at once.
type bench struct {
	t      *testing.T
	m      *model
	worker *fake
	quit   bool
}

const demoConfig = "[model]\nname = \"embedded\"\n"

func newBench(t *testing.T, w, h int) *bench {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(demoConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, worker: newFake()}
	o := Options{Dir: dir, Environment: []string{"TERM=xterm-256color", "LANG=C.UTF-8"}, now: func() time.Time { return start.Add(20 * time.Second) },
		Open: func(context.Context, string) (Worker, error) { return b.worker, nil }}
	b.m = newModel(t.Context(), o)
	b.m.dir = "/home/ada/phi"
	b.m.replies.all = true
	b.m.profile = colorprofile.TrueColor
	b.m.restyle()
	b.send(tea.WindowSizeMsg{Width: w, Height: h})
	b.send(openedMsg{0, b.worker, stateOf(&b.worker.snap)})
	b.m.memory.host = host{used: 6_120_000_000, total: 24_900_000_000, worker: 412_000_000}
	return b
}

// send gives the model a message, and runs the commands that come of it.
func (b *bench) send(msg tea.Msg) {
	_, cmd := b.m.Update(msg)
	b.do(cmd)
	b.m.View()
}

func (b *bench) do(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	done := make(chan tea.Msg, 1)
	go func() { done <- cmd() }()
	var got tea.Msg
	select {
	case got = <-done:
	case <-time.After(500 * time.Millisecond): // a tick
		return
	}
	switch msg := got.(type) {
	case nil, tea.RawMsg:
	case tea.QuitMsg:
		b.quit = true
	case tea.BatchMsg:
		for _, c := range msg {
			b.do(c)
		}
	default:
		b.send(msg)
	}
}

// press sends keys by name: "q", "enter", "ctrl+c", "space".
func (b *bench) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.send(keyOf(k))
	}
}

func keyOf(name string) tea.KeyPressMsg {
	special := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft,
		"right": tea.KeyRight, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown, "home": tea.KeyHome, "end": tea.KeyEnd, "backspace": tea.KeyBackspace, "delete": tea.KeyDelete}
	switch {
	case special[name] != 0:
		return tea.KeyPressMsg{Code: special[name]}
	case name == "shift+tab":
		return tea.KeyPressMsg{Code: tea.KeyTab, Mod: tea.ModShift}
	case name == "space" || name == " ":
		return tea.KeyPressMsg{Code: tea.KeySpace, Text: " "}
	case len(name) > 5 && name[:5] == "ctrl+":
		return tea.KeyPressMsg{Code: rune(name[5]), Mod: tea.ModCtrl}
	}
	return tea.KeyPressMsg{Code: []rune(name)[0], Text: name}
}

// happen gives the model events, numbered from where it is.
func (b *bench) happen(events ...event.Event) {
	var all []client.Numbered
	for i, e := range events {
		all = append(all, client.Numbered{Seq: b.m.state.seq + int64(i) + 1, Event: e})
	}
	b.send(eventsMsg{0, all})
}

// training are the events of a run up to the middle of the training, with a skipped step and one whose loss is no number.
func training(steps int) []event.Event {
	at := func(seconds float64, e event.Event) event.Event {
		e.Time = start.Add(time.Duration(seconds * float64(time.Second)))
		return e
	}
	plan := []event.PlanPart{
		{Stage: "base", State: "missing", Reason: "not made yet", Run: true, MemoryBytes: 67_100_000, DiskBytes: 5_020_000, Seconds: 0.1},
		{Stage: "quantize", State: "missing", Reason: "not made yet", Run: true, MemoryBytes: 921_600, DiskBytes: 2_287_424, Seconds: 0.1},
		{Stage: "lora", State: "missing", Reason: "not made yet", Run: true, MemoryBytes: 3_710_000_000, Memory: event.Uses{"weights": 5_560_000, "adapter": 49_000_000, "activations": 3_655_440_000}, DiskBytes: 122_880, Seconds: 5},
		{Stage: "lora_quantize", State: "missing", Reason: "not made yet", Run: true, MemoryBytes: 1_126_400, DiskBytes: 2_287_424, Seconds: 0.1},
		{Stage: "evaluate", State: "missing", Reason: "not made yet", Run: true, MemoryBytes: 90_506_112, DiskBytes: 614_400, Seconds: 11},
	}
	events := []event.Event{
		at(0, event.Event{Kind: event.Plan, Plan: plan}),
		at(0, event.Event{Kind: event.StageStarted, Stage: "base", Text: "not made yet"}),
		at(1, event.Event{Kind: event.StageDone, Stage: "base", Seconds: 1, Figures: map[string]event.Float{"disk_bytes": 5_113_329}}),
		at(1, event.Event{Kind: event.StageStarted, Stage: "quantize", Text: "not made yet"}),
		at(2, event.Event{Kind: event.Warning, Stage: "quantize", Text: "layer 3: an outlier of 12 σ; compare with double_quant = false"}),
		at(3, event.Event{Kind: event.StageDone, Stage: "quantize", Seconds: 2, Figures: map[string]event.Float{"disk_bytes": 2_443_846, "rms_error": 0.093}}),
		at(3, event.Event{Kind: event.StageStarted, Stage: "lora", Text: "not made yet"}),
		at(3, event.Event{Kind: event.Preview, Stage: "lora", Preview: &event.PreviewPart{Rows: 400, Tokens: 17429, Trained: 17029, Masked: 400, EOSTargets: 400, PaddingShare: 0.66,
			Pieces: []event.Piece{{Text: "###"}, {Text: " Instruction:\nWhat kind of animal is a bee?\n\n### Response:\nA bee is an insect.<|endoftext|>", Trained: true}}}}),
	}
	events = append(events, at(3, event.Event{Kind: event.Memory, Stage: "lora", Memory: event.Uses{"weights": 5_560_000, "adapter": 980_000, "optimizer": 250_000, "activations": 2_110_000_000}}))
	for i := range steps {
		step := event.TrainPart{Step: i + 1, Steps: 200, Epoch: 1, Loss: event.Float(1.9 + 4.8*math.Exp(-float64(i)/18) + 0.25*math.Sin(float64(i*i))), GradNorm: event.Float(0.4 + math.Exp(-float64(i)/9)),
			LR: event.Float(5e-3 * (1 - float64(i)/200)), LossScale: 65536, Tokens: 87, TokensPerSecond: 4000, ETA: float64(200-i) * 0.1}
		if i == 40 {
			step.Skipped, step.GradNorm = true, event.Float(math.Inf(1))
		}
		if i == 70 {
			step.Loss = event.Float(math.NaN())
		}
		events = append(events, at(3+float64(i)*0.1, event.Event{Kind: event.TrainStep, Stage: "lora", Train: &step}))
	}
	return events
}

// measured is the end of a run.
func measured(t *testing.T) []event.Event {
	var r eval.Results
	for i, v := range variants {
		f := float64(i + 1)
		r.Variants = append(r.Variants, eval.VariantResult{Name: v, DiskBytes: int64(5_113_329 / (i + 1)), ResidentBytes: int64(7_718_176 / (i + 1)), LoadSeconds: eval.Figure(0.001 * f), TTFTSeconds: eval.Figure(0.0027 * f),
			PrefillTokensPerSecond: eval.Figure(9503 / f), DecodeTokensPerSecond: eval.Figure(1472 / f), NLLPerToken: eval.Figure(1.9 / f), Perplexity: eval.Figure(math.Exp(1.9 / f)),
			ExactMatch: eval.Figure(0.2 * f), RougeL: eval.Figure(0.2 * f), KLToBase: eval.Figure(0.5 * f)})
	}
	r.HeldOut = eval.HeldOut{Rows: 150, ResponseTokens: 1441}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return []event.Event{
		{Time: start.Add(30 * time.Second), Kind: event.StageDone, Stage: "lora", Seconds: 27, Figures: map[string]event.Float{"disk_bytes": 222_000, "final_loss": 1.937, "tokens_per_second": 4039}},
		{Time: start.Add(31 * time.Second), Kind: event.StageDone, Stage: "lora_quantize", Seconds: 1, Figures: map[string]event.Float{"disk_bytes": 2_443_846, "rms_error": 0.093, "merged_fp16_error": 0.0921}},
		{Time: start.Add(40 * time.Second), Kind: event.StageDone, Stage: "evaluate", Seconds: 9, Figures: map[string]event.Float{"disk_bytes": 302_314}},
		{Time: start.Add(40 * time.Second), Kind: event.Results, Stage: "evaluate", Results: text},
	}
}

// talk gives the workbench answers to a prompt.
func (b *bench) talk() {
	timing := &client.ChatTiming{PromptTokens: 11, Tokens: 9, TTFT: 0.00344, Prefill: 7553, Decode: 1472, MemoryBytes: 7_720_000, Complete: true}
	cut := *timing
	cut.Complete = false
	b.worker.answers = map[string][]client.ChatEvent{
		"base":           {{State: "decoding", Text: "The opposite of happy is sad. The opposite of tall is short."}, {State: "done", Timing: &cut}},
		"quantized":      {{State: "decoding", Text: "The opposite of happy is sad."}, {State: "done", Timing: timing}},
		"lora":           {{State: "decoding", Text: "The capital of France is Paris."}, {State: "done", Timing: timing}},
		"lora_quantized": {{State: "failed", Reason: "load models/phi-2-lora-quantized: no such folder; run lora_quantize"}},
	}
	b.m.post = func(msg tea.Msg) { b.m.Update(msg) }
	b.press("t")
	for _, r := range "What is the capital of France?" {
		b.press(string(r))
	}
	b.press("enter")
}
