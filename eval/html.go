package eval

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"quartet/visible"
)

//go:embed report.html.tmpl
var pageText string

//go:embed report.css
var pageStyle string

var page = template.Must(template.New("report").Parse(pageText))

// Run is one evaluation as the page shows it: its results and what is known of how they came about.
type Run struct {
	ID        string    // names the run, "" where it is not known
	Started   time.Time // zero where it is not known
	Results   *Results
	Artefacts []Artefact // what was evaluated and what that was made from
}

// Artefact is a model, an adapter or a dataset that a run used.
type Artefact struct {
	Name    string
	Folder  string
	Run     string    // that made it, "" for what was given
	Made    time.Time // zero where it is not known
	Seconds Figure    // that making it took
	Digest  string    // of all files together
	Files   []ArtefactFile
}

// ArtefactFile is one file of an artefact.
type ArtefactFile struct {
	Name   string
	Bytes  int64
	Digest string
}

// WriteHTML writes HTML's page. The file is replaced as a whole or not at all.
func (run Run) WriteHTML(path string, former []Run) error {
	text, err := run.HTML(former)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, text)
}

// HTML is the run as one page that needs nothing else: the figures, the training, the answers, the settings, digests and
// the machine. With former runs, newest first, the page compares them with the run.
func (run Run) HTML(former []Run) ([]byte, error) {
	var out bytes.Buffer
	err := page.Execute(&out, run.view(former))
	return out.Bytes(), err
}

// The views hold what the template shows. Their texts are safe to show, and html/template keeps them from being markup.
type (
	pageView struct {
		Style     template.CSS
		Title     string
		Facts     []pair
		Winners   []winnerView
		Names     []nameView
		Table     []rowView
		Notes     []string
		Warnings  []string
		Charts    []groupView
		Training  *trainingView
		Prompts   []promptView
		HeldOut   *heldOutView
		Compared  *comparedView
		Settings  []settingsView
		Artefacts []artefactView
		Machine   []pair
	}
	pair       struct{ Name, Value string }
	winnerView struct{ Label, Value, Who, Base string }
	// nameView is a variant's name in parts between which a line may break, and the class of its color.
	nameView struct {
		Parts []string
		Class string
	}
	rowView struct {
		Label string
		Cells []cellView
	}
	cellView struct {
		Text, Ratio string
		Best        bool
	}
	groupView struct {
		Title  string
		Panels []panelView
	}
	panelView struct {
		Label, Hint string
		Bars        []barView
	}
	barView struct {
		Name  nameView
		Cell  cellView
		Width float64 // percent of the longest
	}
	promptView struct {
		Prompt  string
		Answers []answerView
	}
	answerView struct {
		Name   nameView
		Answer textView
	}
	// textView is a longer text: how many empty lines it began with, what of it is shown, and what is wrong with it.
	textView struct {
		Empty      int
		Text, Note string
	}
	settingsView struct {
		Title string
		Items []pair
	}
	artefactView struct {
		Name, Folder, Made, Seconds, Size, Digest string
		Files                                     []pair
	}
)

func (run Run) view(former []Run) pageView {
	r := run.Results
	v := pageView{
		Style: template.CSS(pageStyle), Title: "Four variants of one model",
		Training: r.Training.view(r.Settings["training.max_grad_norm"]), Prompts: r.promptViews(), HeldOut: r.heldOutView(),
		Compared: compare(run, former), Settings: settingsViews(r.Settings), Artefacts: artefactViews(run.Artefacts),
	}
	if model, ok := r.Settings["model"].(string); ok && model != "" {
		v.Title = clip(visible.Line(model), 200)
	}
	v.Facts = run.facts()
	v.Machine = r.Machine.pairs()
	for i, variant := range r.Variants {
		v.Names = append(v.Names, name(variant.Name, i))
	}
	table := r.cells()
	for n, m := range metrics {
		row := rowView{Label: m.label}
		for i := range r.Variants {
			row.Cells = append(row.Cells, r.cellView(m, table[n], i))
		}
		v.Table = append(v.Table, row)
		if m.winner != "" {
			v.Winners = append(v.Winners, r.winnerViews(m, table[n])...)
		}
	}
	for _, note := range r.notes(table) {
		v.Notes = append(v.Notes, strings.TrimPrefix(note, "* "))
	}
	for _, w := range r.Warnings {
		v.Warnings = append(v.Warnings, visible.Text(w))
	}
	v.Charts = r.groupViews(table)
	return v
}

// facts are the run in one line.
func (run Run) facts() []pair {
	r := run.Results
	var facts []pair
	if !run.Started.IsZero() {
		facts = append(facts, pair{"evaluated", timeText(run.Started)})
	}
	facts = append(facts, pair{"on", visible.Line(r.Machine.String())})
	if r.HeldOut.Rows > 0 {
		facts = append(facts, pair{"held-out rows", fmt.Sprint(r.HeldOut.Rows)})
	}
	if run.ID != "" {
		facts = append(facts, pair{"run", visible.Line(run.ID)})
	}
	return facts
}

// pairs are the machine's properties by name.
func (m Machine) pairs() []pair {
	var all []pair
	for _, p := range []pair{
		{"processor", m.Processor}, {"threads", fmt.Sprint(m.Threads)}, {"device", m.Device}, {"system", m.OS + "/" + m.Arch}, {"Go", m.Go},
	} {
		if p.Value != "" {
			all = append(all, pair{p.Name, visible.Line(p.Value)})
		}
	}
	return all
}

func timeText(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// shortName is a variant's name of a length that columns can have.
func shortName(text string) string { return clip(visible.Line(text), 60) }

// classes is how many colors the style has.
const classes = 8

// name is a variant's name for the page; at is its place among the variants, or negative for none.
func name(text string, at int) nameView {
	n := nameView{Parts: strings.SplitAfter(shortName(text), "_"), Class: "none"}
	if at >= 0 {
		n.Class = fmt.Sprintf("c%d", at%classes)
	}
	return n
}

// cellView is a variant's cell of a metric's row, with how many times base's figure it is where that means something.
func (r *Results) cellView(m metric, row []cell, at int) cellView {
	c := cellView{Text: row[at].text, Best: row[at].best}
	value, base := m.of(&r.Variants[at]), m.of(r.Variant(Base))
	if (m.noise > 0 || m.chart == chartSize) && r.Variants[at].Name != Base && value.Known() && base.Known() && base > 0 {
		c.Ratio = "×" + digits(float64(value/base))
	}
	return c
}

// winnerViews is the best of a metric, nothing where none is better than the others.
func (r *Results) winnerViews(m metric, row []cell) []winnerView {
	var w winnerView
	best := Unknown
	var who []string
	for i := range r.Variants {
		if !row[i].best {
			continue
		}
		if f := m.of(&r.Variants[i]); !best.Known() || float64(m.better)*float64(f-best) > 0 {
			best, w.Value = f, row[i].text
		}
		who = append(who, shortName(r.Variants[i].Name))
	}
	if len(who) == 0 {
		return nil
	}
	w.Label, w.Who = m.winner, strings.Join(who, ", ")
	if base := m.of(r.Variant(Base)); base.Known() && !slices.Contains(who, Base) {
		w.Base = "base: " + m.format(base)
	}
	return []winnerView{w}
}

// groupViews are the bar charts of the metrics that have one.
func (r *Results) groupViews(table [][]cell) []groupView {
	groups := []groupView{{Title: chartSize}, {Title: chartSpeed}, {Title: chartQuality}}
	for n, m := range metrics {
		var highest Figure
		for i := range r.Variants {
			if f := m.of(&r.Variants[i]); f.Known() {
				highest = max(highest, f)
			}
		}
		p := panelView{Label: m.label, Hint: "less is better"}
		if m.better > 0 {
			p.Hint = "more is better"
		}
		for i, variant := range r.Variants {
			b := barView{Name: name(variant.Name, i), Cell: r.cellView(m, table[n], i)}
			if f := m.of(&r.Variants[i]); f.Known() && f > 0 {
				b.Width = math.Round(1000*float64(f/highest)) / 10
			}
			p.Bars = append(p.Bars, b)
		}
		for i := range groups {
			if groups[i].Title == m.chart {
				groups[i].Panels = append(groups[i].Panels, p)
			}
		}
	}
	return groups
}

// promptViews are the answers to the test prompts, by prompt.
func (r *Results) promptViews() []promptView {
	var all []promptView
	for _, prompt := range r.prompts() {
		p := promptView{Prompt: clip(visible.Text(prompt), mostShown)}
		for i, v := range r.Variants {
			answer := textView{Note: "not measured"}
			if at := slices.IndexFunc(v.Answers, func(a Answer) bool { return a.Prompt == prompt }); at >= 0 {
				answer = longText(v.Answers[at].Answer)
			}
			p.Answers = append(p.Answers, answerView{name(v.Name, i), answer})
		}
		all = append(all, p)
	}
	return all
}

// mostShown is how many characters, or so, the page shows of one text.
const mostShown = 4000

// longText is an untrusted text of any length for the page.
func longText(text string) textView {
	body := strings.TrimLeft(text, "\n")
	v := textView{Empty: len(text) - len(body)}
	body = strings.TrimSpace(body)
	if body == "" {
		return textView{Empty: v.Empty, Note: "empty"}
	}
	n := 0
	for at := range body {
		if n == mostShown {
			v.Note = fmt.Sprintf("… and %d bytes more in results.json", len(body)-at)
			body = body[:at]
			break
		}
		n++
	}
	v.Text = visible.Text(body)
	return v
}

// settingsViews are the settings by the part of the configuration that they belong to, those of the run as a whole first.
func settingsViews(settings map[string]any) []settingsView {
	groups := map[string][]pair{}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		group, short, ok := strings.Cut(key, ".")
		if !ok {
			group, short = "", key
		}
		groups[group] = append(groups[group], pair{visible.Line(short), clip(visible.Text(settingText(settings[key])), mostShown)})
	}
	var all []settingsView
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		all = append(all, settingsView{visible.Line(group), groups[group]})
	}
	return all
}

func artefactViews(artefacts []Artefact) []artefactView {
	var all []artefactView
	for _, a := range artefacts {
		v := artefactView{Name: visible.Line(a.Name), Folder: visible.Line(a.Folder), Digest: visible.Line(a.Digest)}
		if !a.Made.IsZero() {
			v.Made = timeText(a.Made)
		}
		if a.Seconds.Known() {
			v.Seconds = formatSeconds(a.Seconds)
		}
		var total int64
		for _, f := range a.Files {
			total += f.Bytes
			v.Files = append(v.Files, pair{visible.Line(f.Name) + " · " + formatBytes(f.Bytes), visible.Line(f.Digest)})
		}
		v.Size = formatBytes(total)
		all = append(all, v)
	}
	return all
}
