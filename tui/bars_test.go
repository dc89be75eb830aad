//go:build bars

package tui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"quartet/event"
	"quartet/worker/client"
)

// The bars are measured on a child process, which is this test again with a scene in its environment, on a real
// pseudo-terminal of 120 × 40, and once more inside tmux.

// serve is a worker of the workspace in dir that streams without end, as the real one does: NDJSON on its socket.
func serve(t *testing.T, dir, scene string) {
	socket, err := client.Socket(dir)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	routes := http.NewServeMux()
	info := newFake().snap.Info
	info.Version = client.Version()
	info.PID = os.Getpid()
	routes.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(info) })
	routes.HandleFunc("GET /snapshot", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(client.Snapshot{Info: info}) })
	routes.HandleFunc("POST /plan", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode([]event.PlanPart{}) })
	routes.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { happen(w, r.Context(), scene) })
	routes.HandleFunc("POST /chat", func(w http.ResponseWriter, r *http.Request) { talk(w, r.Context()) })
	server := &http.Server{Handler: routes}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
}

// happen streams a scene's events.
func happen(w http.ResponseWriter, ctx context.Context, scene string) {
	lines, flush := json.NewEncoder(w), http.NewResponseController(w)
	seq := int64(0)
	emit := func(e event.Event) {
		seq++
		e.Time = time.Now()
		lines.Encode(client.Numbered{Seq: seq, Event: e})
	}
	step := func(i, of int) event.Event {
		return event.Event{Kind: event.TrainStep, Stage: "lora", Train: &event.TrainPart{Step: i, Steps: of, Loss: event.Float(2 + 4/(1+float64(i)/50) + 0.2*float64(i%7)/7), GradNorm: 1, LR: 1e-3, Tokens: 512, TokensPerSecond: 2048, ETA: float64(of-i) / 4}}
	}
	flush.Flush()
	switch scene {
	case "million":
		emit(event.Event{Kind: event.StageStarted, Stage: "lora"})
		for i := range 1_000_000 {
			emit(step(i+1, 1_000_000))
		}
		emit(event.Event{Kind: event.StageDone, Stage: "lora"})
		emit(event.Event{Kind: event.RunDone})
		flush.Flush()
	case "training", "both":
		emit(event.Event{Kind: event.StageStarted, Stage: "lora"})
		for i := 1; ctx.Err() == nil; i++ {
			emit(step(i, 2000))
			flush.Flush()
			time.Sleep(250 * time.Millisecond)
		}
	}
	<-ctx.Done()
}

var words = strings.Fields("the quick model answers in plain words about owls rivers and small towns where rain falls on old stone roofs every autumn")

// talk streams four answers of 50 tokens a second each, in the worker's pieces: two tokens of each every 40 ms.
func talk(w http.ResponseWriter, ctx context.Context) {
	lines, flush := json.NewEncoder(w), http.NewResponseController(w)
	for i := 0; ctx.Err() == nil; i += 2 {
		for n, v := range variants {
			e := client.ChatEvent{Variant: v, State: "decoding", Text: " " + words[(i*7+n*3)%len(words)] + " " + words[(i*7+7+n*3)%len(words)]}
			if i%24 == 0 {
				e.Timing = &client.ChatTiming{Tokens: i + 1, TTFT: 0.02, Prefill: 4000, Decode: 50}
			}
			lines.Encode(e)
		}
		flush.Flush()
		time.Sleep(40 * time.Millisecond)
	}
}

func TestBarsChild(t *testing.T) {
	scene := os.Getenv("QUARTET_SCENE")
	if scene == "" {
		return // run by TestBars alone
	}
	if file := os.Getenv("QUARTET_PID"); file != "" {
		os.WriteFile(file, fmt.Append(nil, os.Getpid()), 0o644)
	}
	debug.SetGCPercent(100)
	dir := os.Getenv("QUARTET_DIR")
	gpu := func() Meter { return nil }
	switch scene {
	case "gpu":
		n := 0
		gpu = func() Meter {
			return func() (Gauge, error) {
				n++
				return Gauge{Name: "H100", Used: 40_000_000_000 + int64(n%13)*77_000_000, Total: 80_000_000_000, Ours: -1, Load: 60 + n*7%30, Celsius: 50 + n%5, Watts: 300 + float64(n*13%90)}, nil
			}
		}
	case "blocked":
		gpu = func() Meter { return func() (Gauge, error) { select {} } }
	}
	err := Run(t.Context(), Options{Dir: dir, GPU: gpu, Open: func(_ context.Context, dir string) (Worker, error) { return client.Dial(dir) }})
	if err != nil {
		t.Fatal(err)
	}
	os.Exit(0)
}

// screen is a child on a pseudo-terminal.
type screen struct {
	t      *testing.T
	tty    *os.File
	cmd    *exec.Cmd
	pid    int
	mu     sync.Mutex
	bytes  int
	tail   []byte
	first  time.Duration
	change chan struct{}
	began  time.Time
}

// open starts a scene; a terminal that answers no query is a mute one.
func open(t *testing.T, scene string, tmux, mute bool) *screen {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(demoConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, scene)
	pidFile := filepath.Join(dir, "pid")
	child := []string{os.Args[0], "-test.run", "^TestBarsChild$"}
	env := append(os.Environ(), "QUARTET_SCENE="+scene, "QUARTET_DIR="+dir, "QUARTET_PID="+pidFile, "TERM=xterm-256color", "COLORTERM=truecolor", "LANG=C.UTF-8", "SSH_TTY=/dev/pts/0", "TMUX=")
	if tmux {
		child = append([]string{"tmux", "-L", fmt.Sprintf("quartet-bars-%d-%d", os.Getpid(), time.Now().UnixNano()), "-f", "/dev/null", "new-session"}, strings.Join(child, " ")+"; tmux kill-server")
	}
	s := &screen{t: t, cmd: exec.Command(child[0], child[1:]...), change: make(chan struct{}, 1), began: time.Now()}
	s.cmd.Env = env
	tty, err := pty.StartWithSize(s.cmd, &pty.Winsize{Rows: 40, Cols: 120})
	if err != nil {
		t.Fatal(err)
	}
	s.tty = tty
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := tty.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.bytes += n
			s.tail = append(s.tail, buf[:n]...)
			if len(s.tail) > 256<<10 {
				s.tail = s.tail[len(s.tail)-128<<10:]
			}
			if s.first == 0 && bytes.Contains(s.tail, []byte("Stages")) {
				s.first = time.Since(s.began)
			}
			s.mu.Unlock()
			if !mute {
				for query, answer := range map[string]string{"\x1b[?2026$p": "\x1b[?2026;2$y", "\x1b[c": "\x1b[?62;22c", "\x1b]11;?": "\x1b]11;rgb:1010/1010/1010\x07"} {
					if bytes.Contains(buf[:n], []byte(query)) {
						tty.WriteString(answer)
					}
				}
			}
			select {
			case s.change <- struct{}{}:
			default:
			}
		}
	}()
	s.until("Stages", 10*time.Second)
	for text, _ := os.ReadFile(pidFile); s.pid == 0; text, _ = os.ReadFile(pidFile) {
		s.pid, _ = strconv.Atoi(string(text))
	}
	return s
}

// until waits for a text among the bytes that come after now, and tells how long that took.
func (s *screen) until(text string, patience time.Duration) time.Duration {
	s.t.Helper()
	began := time.Now()
	late := time.After(patience)
	for {
		s.mu.Lock()
		found := bytes.Contains(s.tail, []byte(text))
		s.mu.Unlock()
		if found {
			return time.Since(began)
		}
		select {
		case <-s.change:
		case <-late:
			s.t.Fatalf("%q did not come within %v: %q", text, patience, s.tail)
		}
	}
}

func (s *screen) press(keys string) {
	s.mu.Lock()
	s.tail = nil
	s.mu.Unlock()
	s.tty.WriteString(keys)
}

// rates are the bytes a second and the share of a core over a while.
func (s *screen) rates(while time.Duration) (rate, core float64) {
	before, used := s.count(), s.cpu()
	time.Sleep(while)
	return float64(s.count()-before) / while.Seconds(), (s.cpu() - used) / while.Seconds()
}

func (s *screen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// cpu is the seconds of processor time that the child has used.
func (s *screen) cpu() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		s.t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return float64(user+system) / 100
}

func (s *screen) resident() float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); f[0] == "VmRSS:" {
			kib, _ := strconv.Atoi(f[1])
			return float64(kib) * 1024 / 1e6
		}
	}
	return 0
}

// latency is how long a key takes to show, for the 95th of a hundred presses.
func (s *screen) latency() time.Duration {
	var all []time.Duration
	for i := range 100 {
		time.Sleep(time.Duration(30+i*7%17) * time.Millisecond)
		if i%2 == 0 {
			s.press("?")
			all = append(all, s.until("Everywhere", 5*time.Second))
		} else {
			s.press("?")
			all = append(all, s.until("Stages", 5*time.Second))
		}
	}
	slices.Sort(all)
	return all[94]
}

func (s *screen) close() time.Duration {
	began := time.Now()
	s.press("q")
	s.cmd.Wait()
	s.tty.Close()
	return time.Since(began)
}

func TestBars(t *testing.T) {
	fmt.Printf("| what | bar | here |\n|---|---|---|\n")
	row := func(what, bar, format string, args ...any) {
		fmt.Printf("| %s | %s | %s |\n", what, bar, fmt.Sprintf(format, args...))
	}
	for _, tmux := range []bool{false, true} {
		where := ""
		if tmux {
			if _, err := exec.LookPath("tmux"); err != nil {
				row("inside tmux", "", "tmux is not installed")
				break
			}
			where = ", tmux"
		}
		s := open(t, "idle", tmux, true)
		if !tmux {
			row("first frame, no query answered", "≤ 50 ms", "%d ms", s.first.Milliseconds())
		}
		s.close()
		s = open(t, "idle", tmux, false)
		time.Sleep(3 * time.Second)
		rate, core := s.rates(10 * time.Second)
		row("idle"+where, "0 B/s, ≤ 0.5 %", "%.0f B/s, %.2f %%", rate, 100*core)
		row("key to paint, idle"+where, "≤ 12 ms", "%.1f ms", s.latency().Seconds()*1e3)
		row("quit"+where, "", "%d ms", s.close().Milliseconds())
		if !tmux {
			s = open(t, "gpu", tmux, false)
			time.Sleep(3 * time.Second)
			rate, core = s.rates(10 * time.Second)
			row("idle with the GPU's panel at 1 Hz", "≤ 350 B/s", "%.0f B/s, %.2f %%", rate, 100*core)
			s.close()
			s = open(t, "blocked", tmux, false)
			s.until("stale", 10*time.Second)
			row("key to paint, NVML that never returns", "as idle", "%.1f ms", s.latency().Seconds()*1e3)
			row("quit, NVML that never returns", "≤ 100 ms", "%d ms", s.close().Milliseconds())
			s = open(t, "million", tmux, false)
			s.until("fresh", 90*time.Second)
			time.Sleep(3 * time.Second)
			_, core = s.rates(5 * time.Second)
			row("1 M points, idle", "≤ 60 MB, ≤ 0.5 %", "%.0f MB, %.2f %%", s.resident(), 100*core)
			s.close()
		}
		s = open(t, "training", tmux, false)
		time.Sleep(3 * time.Second)
		rate, core = s.rates(10 * time.Second)
		row("training, 4 points/s"+where, "≤ 2.5 kB/s", "%.2f kB/s, %.2f %%", rate/1e3, 100*core)
		s.close()
		s = open(t, "both", tmux, false)
		s.until("runs lora", 10*time.Second)
		s.press("t")
		s.press("talk to me\r")
		time.Sleep(2 * time.Second)
		rate, core = s.rates(10 * time.Second)
		row("four panes, 200 tok/s, while training"+where, "≤ 8 kB/s, ≤ 3 %", "%.2f kB/s, %.2f %%", rate/1e3, 100*core)
		row("key to paint meanwhile"+where, "≤ 20 ms", "%.1f ms", s.latency().Seconds()*1e3)
		s.press("c")
		s.close()
	}
}
