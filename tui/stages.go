package tui

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"quartet/console"
	"quartet/event"
)

// stageRows are the stages, one a line: number, name, state, how far it is or what came out, and its size.
func (m *model) stageRows(w int) []string {
	rows := make([]string, len(m.state.names))
	for i, name := range m.state.names {
		rows[i] = m.stageRow(i, m.state.stages[name], w)
	}
	return rows
}

// chosenStage is the name of the selected stage. The last stage may go away while it is selected.
func (m *model) chosenStage() string {
	return m.state.names[min(m.selected, len(m.state.names)-1)]
}

func (m *model) stageRow(i int, st *stage, w int) string {
	t := m.theme
	l := t.line(w)
	mark, r := " ", plain
	if m.state.names[i] == m.chosenStage() {
		mark, r = t.glyph.mark, strong
	}
	l.add(accent, mark).add(dim, fmt.Sprint(i+1, " ")).add(r, m.state.names[i]).to(18)
	state, look := st.plan.State, dim
	switch state {
	case "":
		state = t.glyph.none
	case "fresh":
		look = good
	case "running":
		look = accent
	case "failed":
		look = bad
	default:
		look = warn
	}
	if w >= 50 {
		l.add(look, state).to(30)
	} else {
		l.add(look, cut(state, 7)).to(26)
	}
	size := size(st.size)
	room := w - l.used
	if size != "" && room > 20 {
		room -= 9
	}
	body := t.line(max(room, 0))
	switch {
	case st.running():
		m.progress(body, st)
	case (state == "failed" || state == "interrupted") && st.failure != "":
		body.add(look, t.safe(st.failure))
	case st.plan.Reason != "" && state != "fresh":
		body.add(dim, t.safe(st.plan.Reason))
	default:
		body.add(dim, outcome(st))
	}
	l.out.WriteString(body.String())
	l.used += body.width
	return l.right(plain, size).String()
}

// progress draws a running stage: a bar where the total is known, rate, and the time left.
func (m *model) progress(l *line, st *stage) {
	p := st.progress
	if s := st.train; s != nil {
		p = &event.ProgressPart{Done: int64(s.Step), Total: int64(s.Steps), Unit: "steps", ETA: s.ETA}
		if m.clock.After(st.since) {
			p.Rate = float64(s.Step) / m.clock.Sub(st.since).Seconds()
		}
	}
	if p == nil {
		l.add(dim, "for "+span(max(m.clock.Sub(st.since), 0).Truncate(time.Second)))
		return
	}
	if p.Total > 0 {
		bar := max(min(l.width/6, 16), 4)
		full := int(max(0, min(p.Done*int64(bar)/p.Total, int64(bar))))
		l.add(accent, strings.Repeat(m.theme.glyph.full, full)).add(dim, strings.Repeat(m.theme.glyph.empty, bar-full))
		l.add(plain, fmt.Sprintf(" %3d %%", p.Done*100/p.Total))
	}
	add := func(r role, text string) {
		if l.used+columns(text) <= l.width {
			l.add(r, text)
		}
	}
	if p.Unit == "bytes" {
		add(plain, " "+size(max(p.Done, 1)))
	} else {
		add(plain, fmt.Sprintf(" %d/%d", p.Done, p.Total))
	}
	if p.ETA > 0 {
		add(plain, " ETA "+seconds(p.ETA))
	}
	if s := st.train; s != nil {
		add(strong, fmt.Sprintf("  loss %.3f", float64(s.Loss)))
		if room := l.width - l.used - 2; room >= 6 {
			add(good, " "+m.state.curve.spark(m.theme, min(room, 24)))
		}
		return
	}
	if p.Rate > 0 && p.Unit == "bytes" {
		add(dim, "  "+size(int64(p.Rate))+"/s")
	} else if p.Rate > 0 {
		add(dim, "  "+digits(p.Rate)+" "+m.theme.safe(p.Unit)+"/s")
	}
	if p.Label != "" {
		add(dim, "  "+m.theme.safe(p.Label))
	}
}

// outcome is what a person wants to know of a finished stage.
func outcome(st *stage) string {
	var parts []string
	for _, known := range []struct {
		key, format string
		times       float64
	}{
		{"final_loss", "loss %.4g", 1}, {"tokens_per_second", "%.0f tok/s", 1}, {"rms_error", "error %.2f %%", 100},
		{"merged_fp16_error", "merged in fp16 %.2f %%", 100},
	} {
		if v, ok := st.figures[known.key]; ok {
			parts = append(parts, fmt.Sprintf(known.format, float64(v)*known.times))
		}
	}
	if st.seconds > 0 {
		parts = append(parts, seconds(st.seconds))
	}
	return strings.Join(parts, " · ")
}

// stageLines are all that is known of the selected stage.
func (m *model) stageLines(w, h int) []string {
	t, name := m.theme, m.chosenStage()
	st := m.state.stages[name]
	var all []string
	field := func(label string, r role, text string) {
		if text == "" {
			return
		}
		for i, part := range wrap(text, max(w-16, 8)) {
			if i > 0 {
				label = ""
			}
			all = append(all, t.line(w).add(dim, " "+t.fit(t.safe(label), min(12, w))).add(plain, " ").add(r, part).String())
		}
	}
	field("what", plain, stageHelp[name])
	field("state", strong, st.plan.State)
	field("why", plain, t.safe(st.plan.Reason))
	if st.plan.FetchBytes > 0 {
		field("to fetch", plain, t.safe(st.plan.Fetch)+", "+size(st.plan.FetchBytes))
	}
	for _, u := range st.plan.Uploads {
		field("to send", plain, t.safe(console.UploadText(u)))
	}
	if st.failure != "" && (st.plan.State == "failed" || st.plan.State == "interrupted") {
		field("reason", bad, t.safe(st.failure))
		field("remedy", accent, fmt.Sprintf("mend what the line above names (%s opens the settings, %s the log), then press %s", m.keyOf("settings"), m.keyOf("log"), m.keyOf("run")))
	}
	if (st.plan.State == "" || st.plan.State == "missing") && !m.state.busy && !m.o.Replay {
		field("to do", accent, fmt.Sprintf("%s runs it, %s all that is stale", m.keyOf("run"), m.keyOf("run_all")))
	}
	if p := st.progress; p != nil {
		field("at", plain, t.safe(p.Label))
	}
	field("last run", plain, outcome(st))
	field("on disk", plain, size(st.size))
	if st.plan.MemoryBytes > 0 {
		field("predicted", plain, fmt.Sprintf("%s of memory at the peak, %s on disk, %s", size(st.plan.MemoryBytes), size(st.plan.DiskBytes), seconds(st.plan.Seconds)))
	}
	for _, use := range uses(st.memory) {
		field(use, plain, size(st.memory[use]))
	}
	if p := m.state.preview; name == "lora" && p != nil {
		share := func(n, of int) string { return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(max(of, 1))) }
		field("rows", plain, fmt.Sprintf("%d, %d tokens: %s trained, %s masked; %d truncated; end-of-text trained in %d", p.Rows, p.Tokens, share(p.Trained, p.Tokens), share(p.Masked, p.Tokens), p.Truncated, p.EOSTargets))
		for i, piece := range p.Pieces {
			label, r := "", dim
			if i == 0 {
				label = "one batch"
			}
			if piece.Trained {
				r = good
			}
			field(label, r, t.safeLines(strings.TrimSpace(piece.Text)))
		}
	}
	all = append(all, spaces(w))
	for _, line := range m.state.lines {
		if line.stage == name {
			all = append(all, m.logText(line, w))
		}
	}
	return m.stage.window(all, h)
}

// stageHelp is what each stage does.
var stageHelp = map[string]string{
	"base":          "brings the base model into the workspace",
	"quantize":      "makes the 4-bit NF4 variant of the base",
	"lora":          "trains the LoRA adapter on the dataset's rows",
	"lora_quantize": "merges the adapter into the base and makes it 4-bit",
	"evaluate":      "measures the four variants on rows that training never saw",
	uploadStage:     "takes variants to the places that [upload] names",
}

// keeps is what a stage that was stopped in the middle does not do again.
var keeps = map[string]string{
	"base":      "what has been fetched is not fetched again",
	"lora":      "training goes on from its checkpoint",
	uploadStage: "what has been sent is not sent again",
}

// afterStop tells how a stage that was stopped in the middle goes on.
func afterStop(stage string) string {
	return cmp.Or(keeps[stage], "it starts over the next time")
}
