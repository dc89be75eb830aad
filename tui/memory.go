package tui

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"

	"quartet/event"
)

// Meter reads a GPU: its state, or why there is none. It may block for ever.
type Meter func() (Gauge, error)

// Gauge is what a GPU says of itself. What it does not say is negative.
type Gauge struct {
	Name        string
	Used, Total int64 // bytes of memory
	Ours        int64 // of Used, the worker's
	Load        int   // percent
	Celsius     int
	Watts       float64
}

// sampleMsg is a reading of the GPU or of the host.
type sampleMsg struct {
	gpu  *Gauge
	err  error
	host *host
	at   time.Time
}

// host is the machine's memory in bytes.
type host struct{ used, total, worker int64 }

// memory is the memory pane. A goroutine of its own asks the GPU, so that one that never answers holds up nothing.
type memory struct {
	gpu     *Gauge
	trouble string
	asked   *atomic.Int64 // when the reading under way began, in Unix nanoseconds, 0 for none
	host    host
	wanted  *atomic.Bool // the host is to be read
	pid     *atomic.Int64
}

// sampleEvery is the time between two readings.
const sampleEvery = time.Second

// watch begins to read. Without a GPU it reads the host's memory while there is work.
func (v *memory) watch(ctx context.Context, gpu func() Meter, post func(tea.Msg)) {
	v.asked, v.wanted, v.pid = new(atomic.Int64), new(atomic.Bool), new(atomic.Int64)
	v.wanted.Store(true)
	if gpu == nil {
		gpu = nvidia
	}
	asked, wanted, pid := v.asked, v.wanted, v.pid
	go func() {
		for n := 0; ctx.Err() == nil; n++ {
			if n < 2 || wanted.Load() {
				if h, err := readHost(int(pid.Load())); err == nil {
					post(sampleMsg{host: &h, at: time.Now()})
				}
			}
			select {
			case <-time.After(sampleEvery):
			case <-ctx.Done():
			}
		}
	}()
	go func() {
		asked.Store(time.Now().UnixNano())
		read := gpu()
		for read != nil && ctx.Err() == nil {
			asked.Store(time.Now().UnixNano())
			g, err := read()
			asked.Store(0)
			if err != nil {
				post(sampleMsg{err: err, at: time.Now()})
			} else {
				post(sampleMsg{gpu: &g, at: time.Now()})
			}
			select {
			case <-time.After(sampleEvery):
			case <-ctx.Done():
			}
		}
		asked.Store(0)
	}()
}

func (v *memory) sampling(on bool, pid int) {
	if v.wanted != nil {
		v.wanted.Store(on)
		v.pid.Store(int64(pid))
	}
}

func (v *memory) take(s sampleMsg) {
	switch {
	case s.host != nil:
		v.host = *s.host
	case s.err != nil:
		v.trouble = s.err.Error()
	case s.gpu != nil:
		v.gpu, v.trouble = s.gpu, ""
	}
}

// stale is for how long the GPU has not answered, 0 while it answers.
func (v *memory) stale(now time.Time) time.Duration {
	if v.asked == nil {
		return 0
	}
	if began := v.asked.Load(); began > 0 && now.Sub(time.Unix(0, began)) > 2*sampleEvery {
		return now.Sub(time.Unix(0, began)).Truncate(time.Second)
	}
	return 0
}

// aged reports whether the pane changes with the time alone.
func (v *memory) aged(now time.Time) bool { return v.stale(now) > 0 }

// lines draw the pane into at most h lines: a bar of what is used with the planned peak marked, and what it is used for.
func (v *memory) lines(m *model, w, h int) []string {
	t := m.theme
	st := m.state.stages[m.chosenStage()]
	if at := m.state.at(); at != "" {
		st = m.state.stages[at]
	}
	used, total, label := v.host.used, v.host.total, "host"
	if g := v.gpu; g != nil {
		used, total, label = g.Used, g.Total, "GPU"
	}
	held, planned := st.memory, false
	if st.running() && len(held) == 0 || st.plan.State == "" || st.plan.State == "missing" {
		held, planned = st.plan.Memory, true
	}
	stale := v.stale(m.now())
	var lines []string
	if m.o.Replay { // this machine's memory has nothing to do with it
		if len(held) == 0 {
			return m.block(nil, w, h)
		}
		return m.block(v.legend(t, st.plan.Stage+" "+size(held.Total())+":", held, w), w, h)
	}
	l := t.line(w).add(dim, " "+label+" ")
	if total > 0 {
		text := fmt.Sprintf(" %s of %s", size(used), size(total))
		bar := max(min(w-l.used-columns(text)-1, 40), 4)
		if stale > 0 {
			bar = max(bar-10, 4)
		}
		ours := v.host.worker
		if g := v.gpu; g != nil {
			ours = max(g.Ours, 0)
		}
		others := max(used-ours, 0)
		mark := -1
		if st.plan.MemoryBytes > 0 {
			mark = min(int((others+st.plan.MemoryBytes)*int64(bar)/total), bar-1)
		}
		looks := parts(others, used, held)
		runs(bar, func(i int) (role, string) {
			at := int64(i) * total / int64(bar)
			for len(looks) > 0 && at >= looks[0].end {
				looks = looks[1:]
			}
			switch {
			case i == mark:
				return warn, t.glyph.bar
			case at >= used:
				return dim, t.glyph.empty
			case len(looks) > 0:
				return looks[0].look, t.glyph.full
			}
			return accent, t.glyph.full
		}, func(r role, text string) { l.add(r, text) })
		l.add(plain, text)
	} else if v.gpu == nil {
		l.add(dim, "not read yet")
	}
	if stale > 0 && (v.gpu != nil || h == 1) {
		l.add(warn, " stale "+fmt.Sprintf("%.0fs", stale.Seconds()))
	}
	lines = append(lines, l.String())
	add := func(r role, text string) {
		if text != "" {
			lines = append(lines, t.line(w).add(r, " "+t.safe(text)).String())
		}
	}
	switch g := v.gpu; {
	case g != nil:
		var parts []string
		if g.Load >= 0 {
			parts = append(parts, fmt.Sprintf("%d %% busy", g.Load))
		}
		if g.Celsius >= 0 {
			parts = append(parts, fmt.Sprintf("%d °C", g.Celsius))
		}
		if g.Watts >= 0 {
			parts = append(parts, fmt.Sprintf("%.0f W", g.Watts))
		}
		add(plain, strings.Join(parts, " · "))
		if g.Ours >= 0 {
			add(dim, fmt.Sprintf("worker %s · others %s", size(max(g.Ours, 1)), size(max(g.Used-g.Ours, 1))))
		}
	case stale > 0:
		add(warn, fmt.Sprintf("the GPU does not answer: stale %.0fs", stale.Seconds()))
	}
	if len(held) > 0 {
		what := st.plan.Stage + " has " + size(held.Total())
		switch {
		case planned:
			what = st.plan.Stage + " plans " + t.glyph.bar + " " + size(held.Total())
		case !st.running():
			what = st.plan.Stage + " had " + size(held.Total())
		}
		if !planned && st.plan.MemoryBytes > 0 {
			what += " of " + t.glyph.bar + " " + size(st.plan.MemoryBytes)
		}
		lines = append(lines, v.legend(t, what+":", held, w)...)
	} else if st.plan.MemoryBytes > 0 {
		add(dim, fmt.Sprintf("%s %s plans %s at its peak", t.glyph.bar, st.plan.Stage, size(st.plan.MemoryBytes)))
	}
	if v.host.worker > 0 && v.gpu == nil {
		add(dim, "worker "+size(v.host.worker)+" of the host's memory")
	}
	if v.trouble != "" {
		add(warn, "GPU: "+v.trouble)
	}
	return m.block(lines, w, h)
}

// part is a part of the bar: what it looks like, and the byte that it ends before.
type part struct {
	end  int64
	look role
}

// looks are those of each use, in the bar and in its legend.
var looks = map[string]role{"weights": accent, "adapter": strong, "optimizer": good, "activations": warn, "cache": added}

// parts are others' memory and after it the worker's by use, as far as that is known.
func parts(others, used int64, held event.Uses) []part {
	all := []part{{others, dim}}
	for _, use := range uses(held) {
		all = append(all, part{min(all[len(all)-1].end+held[use], used), looks[use]})
	}
	return all
}

// legend tells in the bar's colours what memory is used for.
func (v *memory) legend(t *theme, what string, held event.Uses, w int) (lines []string) {
	l := t.line(w).add(dim, " "+t.safe(what))
	for _, use := range uses(held) {
		name, bytes := " "+t.safe(use)+" ", size(held[use])
		if l.used+columns(name+bytes) > w {
			lines, l = append(lines, l.String()), t.line(w).add(plain, " ")
		}
		l.add(looks[use], name).add(plain, bytes)
	}
	return append(lines, l.String())
}

// readHost reads the machine's memory and what the worker's process has of it.
func readHost(pid int) (host, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return host{}, err
	}
	defer f.Close()
	var h host
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "MemTotal:":
			h.total = kib << 10
		case "MemAvailable:":
			h.used = h.total - kib<<10
		}
	}
	if pid > 0 {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil {
			if fields := strings.Fields(string(text)); len(fields) > 1 {
				pages, _ := strconv.ParseInt(fields[1], 10, 64)
				h.worker = pages * int64(os.Getpagesize())
			}
		}
	}
	return h, lines.Err()
}
