package eval

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"quartet/visible"
)

// trainingView is the curves of a training.
type trainingView struct {
	Summary []pair
	Loss    chart
	Small   []chart
}

// view is the training's curves, nil without training. clip is the setting of the norm to which gradients are clipped.
func (t *Training) view(clip any) *trainingView {
	if t == nil || len(t.Loss) == 0 {
		return nil
	}
	n := len(t.Loss)
	smoothed := smooth(t.Loss)
	first, last := ends(smoothed)
	v := &trainingView{Summary: []pair{{"steps", fmt.Sprint(n)}}}
	if t.Seconds.Known() {
		v.Summary = append(v.Summary, pair{"time", formatSeconds(t.Seconds)})
	}
	v.Summary = append(v.Summary, pair{"loss, first step", lossText(t.Loss[0])}, pair{"loss, last step", lossText(t.Loss[n-1])},
		pair{"smoothed at the end", lossText(last)})

	v.Loss = chart{
		Title: "Loss", Note: fmt.Sprintf("averaged over %d steps", smoothing(n)), Left: unfinite(t.Loss),
		Summary: fmt.Sprintf("Loss over %d steps; smoothed from %s to %s.", n, lossText(first), lossText(last)),
	}
	v.Loss.draw([]series{{"raw", t.Loss}, {"smooth", smoothed}}, false, Unknown)

	rate := chart{Title: "Learning rate", Summary: fmt.Sprintf("Learning rate over %d steps.", len(t.LearningRate)), Left: unfinite(t.LearningRate)}
	rate.draw([]series{{"rate", t.LearningRate}}, true, Unknown)
	norm := chart{Title: "Gradient norm", Summary: fmt.Sprintf("Gradient norm before clipping over %d steps.", len(t.GradNorm)), Left: unfinite(t.GradNorm)}
	limit := Unknown
	if f, ok := clip.(float64); ok && f > 0 {
		limit, norm.Note = Figure(f), "clipped to "+plain(Figure(f))
	}
	norm.draw([]series{{"raw", t.GradNorm}, {"smooth", smooth(t.GradNorm)}}, false, limit)
	for _, c := range []chart{rate, norm} {
		if len(c.Curves) > 0 {
			v.Small = append(v.Small, c)
		}
	}
	return v
}

// mostCompared is how many runs a comparison shows: one for each color.
const mostCompared = classes

// comparedView is runs side by side, newest first: their curves, what they differ in and what came of it.
type comparedView struct {
	Runs   []comparedRun
	Loss   chart
	Groups []comparedGroup
	Left   int // older runs that are not shown
}

// comparedRun heads a column. Runs with the same curve have the same class.
type comparedRun struct{ Label, Time, Class string }

// comparedGroup is rows under a heading: a title, or a variant's name.
type comparedGroup struct {
	Title string
	Name  nameView
	Rows  []rowView
}

// compare is the run beside former ones, nil where there are none.
func compare(run Run, former []Run) *comparedView {
	if len(former) == 0 {
		return nil
	}
	v := &comparedView{}
	runs := append([]Run{run}, former...)
	if len(runs) > mostCompared {
		runs, v.Left = runs[:mostCompared], len(runs)-mostCompared
	}
	var curves []series
	trainings := make([]*Training, len(runs))
	for i, one := range runs {
		trainings[i] = one.Results.Training
		at := slices.IndexFunc(trainings[:i+1], trainings[i].same)
		label := fmt.Sprintf("run %d", i+1)
		if i == 0 {
			label = "this run"
		}
		head := comparedRun{Label: label, Class: fmt.Sprintf("r%d", at)}
		if !one.Started.IsZero() {
			head.Time = one.Started.UTC().Format("2006-01-02 15:04:05")
		}
		if trainings[i] == nil {
			head.Class = "none"
		} else if at == i {
			curves = append(curves, series{head.Class, smooth(trainings[i].Loss)})
		}
		v.Runs = append(v.Runs, head)
	}
	slices.Reverse(curves) // the newest is drawn last, on top
	v.Loss = chart{Title: "Smoothed loss", Summary: fmt.Sprintf("Smoothed loss of %d trainings over their steps.", len(curves))}
	v.Loss.draw(curves, false, Unknown)
	v.Groups = append([]comparedGroup{{Title: "settings that differ", Rows: settingRows(runs)}, {Title: "training", Rows: trainingRows(trainings)}}, variantGroups(runs)...)
	return v
}

// same reports whether two trainings went the same way.
func (t *Training) same(o *Training) bool {
	if t == nil || o == nil {
		return t == o
	}
	return slices.EqualFunc(t.Loss, o.Loss, func(a, b Figure) bool { return a == b || !a.Known() && !b.Known() })
}

// settingRows are the settings and circumstances in which the runs differ.
func settingRows(runs []Run) []rowView {
	texts := make([]map[string]string, len(runs))
	keys := map[string]bool{}
	for i, run := range runs {
		texts[i] = map[string]string{}
		for key, value := range run.Results.Settings {
			texts[i][key] = settingText(value)
		}
		for _, p := range run.Results.Machine.pairs() {
			texts[i]["machine, "+p.Name] = p.Value
		}
		texts[i]["held-out rows"] = fmt.Sprint(run.Results.HeldOut.Rows)
		for key := range texts[i] {
			keys[key] = true
		}
	}
	var rows []rowView
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		row, differ := rowView{Label: visible.Line(key)}, false
		for i := range runs {
			text, known := texts[i][key]
			if !known {
				text = unknown
			}
			differ = differ || text != texts[0][key]
			row.Cells = append(row.Cells, cellView{Text: clip(visible.Text(text), 150)})
		}
		if differ {
			rows = append(rows, row)
		}
	}
	return rows
}

// variantGroups are the figures of each variant in which the runs differ, the best of a row marked.
func variantGroups(runs []Run) []comparedGroup {
	var names []string
	for _, run := range runs {
		for _, v := range run.Results.Variants {
			if !slices.Contains(names, v.Name) {
				names = append(names, v.Name)
			}
		}
	}
	var groups []comparedGroup
	for n, variant := range names {
		var rows []rowView
		for _, m := range metrics {
			values := make([]Figure, len(runs))
			for i, run := range runs {
				values[i] = m.of(run.Results.Variant(variant))
			}
			rows = append(rows, m.compared(values)...)
		}
		if len(rows) > 0 {
			groups = append(groups, comparedGroup{Name: name(variant, n), Rows: rows})
		}
	}
	return groups
}

// trainingRows are the ends of the trainings' curves and the time that they took.
func trainingRows(trainings []*Training) []rowView {
	losses, seconds := make([]Figure, len(trainings)), make([]Figure, len(trainings))
	for i, t := range trainings {
		losses[i], seconds[i] = Unknown, Unknown
		if t != nil {
			_, losses[i] = ends(smooth(t.Loss))
			seconds[i] = t.Seconds
		}
	}
	return append(metric{label: "smoothed loss at the end", format: decimals(4), better: -1}.compared(losses),
		metric{label: "time", format: formatSeconds, better: -1, noise: timingNoise}.compared(seconds)...)
}

// compared is the metric's row of values that differ, nothing where they are as good as equal.
func (m metric) compared(values []Figure) []rowView {
	row, differ := rowView{Label: m.label}, false
	cells := m.row(values)
	for _, c := range cells {
		differ = differ || c.best || m.better == 0 && c.text != cells[0].text
		row.Cells = append(row.Cells, cellView{Text: c.text, Best: c.best})
	}
	if !differ {
		return nil
	}
	return []rowView{row}
}

// clip is the first most bytes of a text or so, whole characters.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
