package tui

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"

	"quartet/event"
	"quartet/worker/client"
)

// TestReadmeHasTheKeys holds the README's list against the table that dispatches keys.
func TestReadmeHasTheKeys(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- keys: written by go test ./tui -run Keys -update -->\n", "<!-- end of keys -->"
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatal("README.md lacks the marks around the list of keys")
	}
	want := before + begin + KeyList() + end + after
	if *update {
		if err := os.WriteFile("../README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Error("README.md's keys are not the table's; run go test ./tui -run Keys -update")
	}
}

func TestEveryKeyStandsOnceInItsPlace(t *testing.T) {
	all := bindings()
	seen := map[string]string{}
	for _, b := range all {
		for _, k := range b.keys {
			id := placeNames[b.where] + " " + k
			if seen[id] != "" {
				t.Errorf("%s is both %s and %s", id, seen[id], b.action)
			}
			seen[id] = b.action
			if b.where < typing && (k == "ctrl+a" || k == "ctrl+b") {
				t.Errorf("%s: screen and tmux own %s", b.action, k)
			}
		}
	}
}

func TestRebind(t *testing.T) {
	table := bindings()
	if err := rebind(table, map[string][]string{"zoom": {"Z"}}); err != nil || find(table, inChat, "Z").action != "zoom" || find(table, inChat, "z") != nil {
		t.Errorf("%v", err)
	}
	if err := rebind(bindings(), map[string][]string{"zomo": {"Z"}}); err == nil || !strings.Contains(err.Error(), `no action "zomo"`) {
		t.Errorf("%v", err)
	}
	if err := rebind(bindings(), map[string][]string{"zoom": {"q"}}); err == nil || !strings.Contains(err.Error(), `"q" would be both quit and zoom`) {
		t.Errorf("%v", err)
	}
}

// TestRandomKeysAtAnySize presses keys at random on screens from 1 × 1 to 300 × 100 and holds every frame to its size.
func TestRandomKeysAtAnySize(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var names []string
	for _, b := range bindings() {
		names = append(names, b.keys...)
	}
	names = append(names, "x", "é", "漢", "esc", "enter")
	for range 8 {
		b := newBench(t, 1+random.IntN(300), 1+random.IntN(100))
		b.m.post = func(msg tea.Msg) { b.m.Update(msg) }
		b.worker.answers = map[string][]client.ChatEvent{"base": {{State: "decoding", Text: strings.Repeat("a long answer ", 200)}, {State: "done"}}}
		events := append(training(150), measured(t)...)
		for i := range 250 {
			switch n := random.IntN(10); {
			case n == 0:
				w, h := 1+random.IntN(300), 1+random.IntN(100)
				if random.IntN(2) == 0 {
					w, h = 1+random.IntN(70), 1+random.IntN(20)
				}
				b.send(tea.WindowSizeMsg{Width: w, Height: h})
			case n == 1:
				b.happen(events[i%len(events)])
			default:
				name := names[random.IntN(len(names))]
				if msg := keyOf(name); name != "Q" {
					b.send(msg)
				}
			}
			if frame := b.m.View().Content; b.m.height > 0 {
				checkFrame(t, frame, b.m.width, b.m.height)
			}
		}
	}
}

func TestRunRerunAndCancel(t *testing.T) {
	b := newBench(t, 120, 40)
	b.press("a")
	if len(b.worker.runs) != 1 || b.worker.runs[0].Force || len(b.worker.runs[0].Stages) != 0 {
		t.Fatalf("a asked for %+v", b.worker.runs)
	}
	b.happen(training(50)...)
	b.press("c")
	if b.worker.canceled != 1 {
		t.Error("training is not cancelled at once, though its checkpoint is kept")
	}
	b.happen(event.Event{Kind: event.StageFailed, Stage: "lora", Canceled: true, Text: "stopped at step 50; a checkpoint is kept"}, event.Event{Kind: event.RunDone, Canceled: true, Text: "stopped"})
	if frame := b.m.View().Content; !strings.Contains(frame, "interrupted") || !strings.Contains(frame, "a checkpoint is kept") {
		t.Error("the stage does not say that it was interrupted")
	}
	b.press("1", "r")
	if _, asks := b.m.dialog.(*question); !asks {
		t.Fatal("a rerun of a fresh stage is not asked about")
	}
	b.press("esc")
	if len(b.worker.runs) != 1 {
		t.Fatal("no ran it")
	}
	b.press("R", "enter")
	if r := b.worker.runs[1]; !r.Force || len(r.Stages) != 5 {
		t.Errorf("R asked for %+v", r)
	}
	b.happen(event.Event{Kind: event.StageStarted, Stage: "evaluate"})
	b.press("c")
	if b.worker.canceled != 1 {
		t.Error("a stage that loses its work is cancelled without asking")
	}
	b.press("y")
	if b.worker.canceled != 2 {
		t.Error("yes did not cancel")
	}
	b.happen(event.Event{Kind: event.StageStarted, Stage: "base"})
	b.press("c")
	if b.worker.canceled != 3 {
		t.Error("a download, which goes on where it was, is not cancelled at once")
	}
	b.press("Q")
	if q, asks := b.m.dialog.(*question); !asks || !slices.Equal(q.lines, []string{"base is at work; what has been fetched is not fetched again"}) {
		t.Errorf("Q asks %+v", b.m.dialog)
	}
}

func TestQuitLeavesTheWorker(t *testing.T) {
	b := newBench(t, 80, 24)
	b.press("q")
	if !b.quit || b.worker.stopped != 0 {
		t.Errorf("quit %v, stopped %d", b.quit, b.worker.stopped)
	}
	b = newBench(t, 80, 24)
	b.press("Q")
	if b.quit || b.worker.stopped != 0 {
		t.Fatal("Q did not ask")
	}
	b.press("enter")
	if !b.quit || b.worker.stopped != 1 {
		t.Errorf("quit %v, stopped %d", b.quit, b.worker.stopped)
	}
}

func TestSettingsKeepComments(t *testing.T) {
	b := newBench(t, 100, 30)
	b.m.dir = t.TempDir()
	path := filepath.Join(b.m.dir, "config.toml")
	if err := os.WriteFile(path, []byte("# mine\nseed = 42 # the answer\n[model]\nname = \"embedded\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.press(",", "enter")
	b.press("backspace", "backspace", "7", "enter")
	text, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(text), "# mine\nseed = 7 # the answer\n") {
		t.Fatalf("%v, %q", err, text)
	}
	b.press("enter", "backspace", "x", "enter")
	if again, _ := os.ReadFile(path); string(again) != string(text) {
		t.Errorf("a wrong value was written: %q", again)
	}
	if frame := b.m.View().Content; !strings.Contains(frame, "not a value") {
		t.Error("the form does not say what is wrong")
	}
}

// TestPromptWaitsForItsWorker sends a prompt while the worker is being started: nothing that was written is lost.
func TestPromptWaitsForItsWorker(t *testing.T) {
	b := newBench(t, 100, 30)
	b.m.opening = true
	b.press("t", "h", "i", "enter")
	if frame := b.m.View().Content; !strings.Contains(frame, "hi") || !strings.Contains(frame, "being started") {
		t.Errorf("the prompt is gone:\n%s", frame)
	}
	b.m.opening = false
	b.press("enter")
	if len(b.worker.chats) != 1 || b.worker.chats[0].Prompt != "hi" {
		t.Errorf("asked %+v", b.worker.chats)
	}
}

// TestKeysBeforeTheWorkerIsThere asks for a run while the worker is being started: it begins with the worker.
func TestKeysBeforeTheWorkerIsThere(t *testing.T) {
	b := newBench(t, 100, 30)
	b.m.worker, b.m.opening = nil, true
	b.press("a")
	if len(b.worker.runs) != 0 || !strings.Contains(b.m.View().Content, "begins with it") {
		t.Fatalf("ran %v", b.worker.runs)
	}
	b.send(openedMsg{0, b.worker, stateOf(&b.worker.snap)})
	if len(b.worker.runs) != 1 {
		t.Errorf("asked for %v", b.worker.runs)
	}
}

// TestNoticeFades sees a notice go while a run is at work, and the keys' line come back.
func TestNoticeFades(t *testing.T) {
	b := newBench(t, 100, 30)
	b.happen(training(5)...)
	b.press("v", "t", "esc", "v")
	if !strings.Contains(b.m.View().Content, "votes are cast blind") {
		t.Fatal("no notice")
	}
	for range noticeSeconds {
		b.m.Update(tickMsg{})
	}
	if frame := b.m.View().Content; strings.Contains(frame, "votes are cast blind") || !strings.Contains(frame, "leave") {
		t.Errorf("the notice stays:\n%s", frame)
	}
}

// TestBrokenConfigIsTold opens a workspace whose config.toml cannot be read: the workbench says where and why, and goes on once
// it is mended.
func TestBrokenConfigIsTold(t *testing.T) {
	b := newBench(t, 100, 30)
	path := filepath.Join(b.m.o.Dir, "config.toml")
	if err := os.WriteFile(path, []byte("seed = \"many\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := newModel(t.Context(), b.m.o)
	m.width, m.height = 100, 30
	m.Update(startMsg{})
	if frame := m.View().Content; !strings.Contains(frame, "config.toml:1:8") || !strings.Contains(frame, `seed = "many"`) || !strings.Contains(frame, "w finds or starts it") {
		t.Errorf("the workbench does not tell what is wrong:\n%s", frame)
	}
	if err := os.WriteFile(path, []byte(demoConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	m.Update(keyOf("w"))
	if !m.opening || m.lost != "" {
		t.Errorf("after it was mended: opening %v, %q", m.opening, m.lost)
	}
}

// TestRecordingCannotBeAsked presses what would ask a worker.
func TestRecordingCannotBeAsked(t *testing.T) {
	b := newBench(t, 100, 30)
	b.m.o.Replay = true
	b.happen(training(30)...)
	for _, key := range []string{"a", "r", "R"} {
		if b.press(key); !strings.Contains(b.m.View().Content, "this is a recording") {
			t.Errorf("%s does not say that this is a recording", key)
		}
	}
	b.press("t")
	if frame := b.m.View().Content; !strings.Contains(frame, "holds no chats") || strings.Contains(frame, "24.9 GB") {
		t.Errorf("of a recording:\n%s", frame)
	}
}
