package eval

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// metric is a row of the table.
type metric struct {
	label  string
	value  func(v VariantResult) Figure
	format func(f Figure) string
	better int     // -1 where less is better, 1 where more is, 0 where neither is
	noise  float64 // a relative difference up to this is none
	chart  string  // the group of the report's bar charts that draws it, "" for none
	winner string  // what the report calls the best, "" where it does not single it out
}

func decimals(n int) func(Figure) string {
	return func(f Figure) string { return fmt.Sprintf("%.*f", n, float64(f)) }
}

func size(f Figure) string { return formatBytes(int64(f)) }

func plain(f Figure) string { return digits(float64(f)) }

func percent(f Figure) string { return fmt.Sprintf("%.1f %%", 100*float64(f)) }

// timingNoise is how far timings of the same work lie apart.
const timingNoise = 0.03

// The groups of the report's bar charts.
const (
	chartSize    = "Size"
	chartSpeed   = "Speed"
	chartQuality = "Quality"
)

// exactMatch is a metric of a category of rows too.
var exactMatch = metric{"exact match", func(v VariantResult) Figure { return v.ExactMatch }, percent, 1, 0, chartQuality, "most exact answers"}

// metrics are the table's rows. Divergence from base is no merit: fine-tuning moves away from it on purpose.
var metrics = []metric{
	{"on disk", func(v VariantResult) Figure { return Figure(v.DiskBytes) }, size, -1, 0, chartSize, "smallest on disk"},
	{"memory", func(v VariantResult) Figure { return Figure(v.ResidentBytes) }, size, -1, 0, chartSize, ""},
	{"load", func(v VariantResult) Figure { return v.LoadSeconds }, formatSeconds, -1, timingNoise, "", ""},
	{"first token", func(v VariantResult) Figure { return v.TTFTSeconds }, formatSeconds, -1, timingNoise, chartSpeed, ""},
	{"prefill tok/s", func(v VariantResult) Figure { return v.PrefillTokensPerSecond }, plain, 1, timingNoise, chartSpeed, ""},
	{"decode tok/s", func(v VariantResult) Figure { return v.DecodeTokensPerSecond }, plain, 1, timingNoise, chartSpeed, "fastest decode, tok/s"},
	{"NLL / token", func(v VariantResult) Figure { return v.NLLPerToken }, decimals(4), -1, 0, chartQuality, "lowest NLL / token"},
	{"perplexity", func(v VariantResult) Figure { return v.Perplexity }, decimals(3), -1, 0, "", ""},
	exactMatch,
	{"ROUGE-L", func(v VariantResult) Figure { return v.RougeL }, decimals(3), 1, 0, chartQuality, ""},
	{"KL to base", func(v VariantResult) Figure { return v.KLToBase }, decimals(4), 0, 0, "", ""},
}

// cell is one figure of the table as text.
type cell struct {
	text string
	best bool // of its row, and not all of the row are equal
}

const unknown = "–"

// cells is the table: a row for each metric, a column for each variant.
func (r *Results) cells() [][]cell {
	var table [][]cell
	disturbed := len(r.shared()) > 0
	for _, m := range metrics {
		values := make([]Figure, len(r.Variants))
		for i := range r.Variants {
			values[i] = m.of(&r.Variants[i])
		}
		row := m.row(values)
		for i := range row {
			row[i].best = row[i].best && !(disturbed && m.noise > 0) // such timings cannot be compared
		}
		table = append(table, row)
	}
	return table
}

// of is the metric of a variant, Unknown where that is nil or missing.
func (m metric) of(v *VariantResult) Figure {
	if v == nil || v.Missing != "" {
		return Unknown
	}
	return m.value(*v)
}

// row is values of the metric side by side. Those that read the same, or differ by no more than the metric's noise, are
// equally good.
func (m metric) row(values []Figure) []cell {
	row := make([]cell, len(values))
	best := Unknown
	known := 0
	for i, f := range values {
		row[i].text = unknown
		if !f.Known() {
			continue
		}
		known++
		row[i].text = m.format(f)
		if !best.Known() || float64(m.better)*float64(f-best) > 0 {
			best = f
		}
	}
	equal := 0
	for i, f := range values {
		if !f.Known() {
			continue
		}
		if row[i].text == m.format(best) || math.Abs(float64(f-best)) <= m.noise*math.Abs(float64(best)) {
			equal++
			row[i].best = m.better != 0
		}
	}
	for i := range row {
		row[i].best = row[i].best && equal < known
	}
	return row
}

// Table is the variants' figures for a terminal of a width in columns: a row for each metric and a column for each
// variant, or where that is too wide a block for each variant. The best of a row is marked with an asterisk, and in
// color with bold green too.
func (r *Results) Table(width int, color bool) string {
	table := r.cells()
	labels := 0
	for _, m := range metrics {
		labels = max(labels, columns(m.label))
	}
	wide, widest, all := make([]int, len(r.Variants)), 0, labels
	for i, v := range r.Variants {
		wide[i] = columns(oneLine(v.Name))
		for _, row := range table {
			wide[i] = max(wide[i], columns(row[i].text))
		}
		widest, all = max(widest, wide[i]), all+2+wide[i]+2 // the mark takes two
	}
	var out strings.Builder
	line := func(text string) { out.WriteString(strings.TrimRight(text, " ") + "\n") }
	if all <= width {
		header := pad("", labels)
		for i, v := range r.Variants {
			header += "  " + padLeft(oneLine(v.Name), wide[i]) + "  "
		}
		line(header)
		line(strings.Repeat("─", all))
		for n, m := range metrics {
			text := pad(m.label, labels)
			for i, c := range table[n] {
				text += "  " + marked(padLeft(c.text, wide[i]), c.best, color)
			}
			line(text)
		}
	} else {
		for i, v := range r.Variants {
			if i > 0 {
				line("")
			}
			line(oneLine(v.Name))
			for n, m := range metrics {
				c := table[n][i]
				line("  " + pad(m.label, labels) + "  " + marked(padLeft(c.text, widest), c.best, color))
			}
		}
	}
	for _, note := range r.notes(table) {
		for _, l := range wrap(note, max(width, 20)) {
			line(l)
		}
	}
	return out.String()
}

// marked is a padded figure with its mark, or the space of one.
func marked(text string, best, color bool) string {
	switch {
	case !best:
		return text + "  "
	case color:
		return "\x1b[1;32m" + text + "\x1b[0m *"
	}
	return text + " *"
}

// notes are the lines under the table: what its marks mean, what a size includes and which variants are missing.
func (r *Results) notes(table [][]cell) []string {
	var notes []string
	if slices.ContainsFunc(table, func(row []cell) bool { return slices.ContainsFunc(row, func(c cell) bool { return c.best }) }) {
		notes = append(notes, "* best of its row; timings: within 3 % of it")
	}
	if names := r.shared(); len(names) > 0 {
		notes = append(notes, fmt.Sprintf("timings of %s were taken while other work, such as a chat, shared the device: they are slower than alone and not comparable; evaluate again for others", oneLine(strings.Join(names, ", "))))
	}
	if r.HeldOut.Rows > 0 {
		notes = append(notes, fmt.Sprintf("quality on %d held-out rows (%d tokens of reference answers)", r.HeldOut.Rows, r.HeldOut.ResponseTokens))
	}
	for _, v := range r.Variants {
		if v.AdapterBytes > 0 {
			notes = append(notes, fmt.Sprintf("%s needs its base: the adapter alone is %s on disk", oneLine(v.Name), formatBytes(v.AdapterBytes)))
		}
		if v.Missing != "" {
			notes = append(notes, fmt.Sprintf("%s is missing: %s", oneLine(v.Name), oneLine(v.Missing)))
		}
	}
	return notes
}
