package eval

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"quartet/visible"
)

const (
	sampledRows    = 10   // held-out rows that the reports show in full
	drawnRows      = 2000 // rows of which it draws the outcome, at most
	mostCategories = 12   // rows of the table by category, at most
	partlyRight    = 0.5  // ROUGE-L from which an answer counts as partly right in the drawing
)

// heldOutView is how the variants did on the held-out rows.
type heldOutView struct {
	Rows, Drawn int
	Strips      []stripView
	Categories  []rowView
	Names       []nameView
	Sample      []exampleView
}

// stripView is a variant's outcome on every row, as paths of one unit a row: the exact answers, and those partly right.
type stripView struct {
	Name          nameView
	Exact, Partly string
	Count         string
}

// exampleView is one held-out row.
type exampleView struct {
	Category, Instruction, Context string
	Reference                      textView
	Answers                        []responseView
}

// responseView is a variant's answer to a held-out row.
type responseView struct {
	Name   nameView
	Answer textView
	Right  bool
	Scores string
}

// heldOutView is nil where the results hold no rows.
func (r *Results) heldOutView() *heldOutView {
	rows := r.HeldOut.Examples
	if len(rows) == 0 {
		return nil
	}
	v := &heldOutView{Rows: len(rows), Drawn: min(len(rows), drawnRows)}
	for i, variant := range r.Variants {
		v.Names = append(v.Names, name(variant.Name, i))
	}
	v.drawStrips(r)
	v.Categories = r.categoryRows()
	for _, e := range r.sample() {
		v.Sample = append(v.Sample, r.exampleView(e))
	}
	return v
}

// sample is evenly spaced ones of the held-out rows.
func (r *Results) sample() []Example {
	all := r.HeldOut.Examples
	some := make([]Example, min(sampledRows, len(all)))
	for i := range some {
		some[i] = all[i*len(all)/len(some)]
	}
	return some
}

// drawStrips draws the outcomes by category. Where the rows are too many, evenly chosen ones stand for all.
func (v *heldOutView) drawStrips(r *Results) {
	rows := slices.Clone(r.HeldOut.Examples)
	slices.SortStableFunc(rows, func(a, b Example) int { return cmp.Compare(a.Category, b.Category) })
	for i, variant := range r.Variants {
		if variant.Missing != "" {
			continue
		}
		s := stripView{Name: name(variant.Name, i)}
		var exact, partly strings.Builder
		right := 0
		for _, row := range rows {
			if a := row.of(variant.Name); a != nil && a.ExactMatch {
				right++
			}
		}
		for n := range v.Drawn {
			switch a := rows[n*len(rows)/v.Drawn].of(variant.Name); {
			case a == nil:
			case a.ExactMatch:
				fmt.Fprintf(&exact, "M%d 0h1v1h-1z", n)
			case a.RougeL >= partlyRight:
				fmt.Fprintf(&partly, "M%d 0h1v1h-1z", n)
			}
		}
		s.Exact, s.Partly, s.Count = exact.String(), partly.String(), fmt.Sprintf("%d / %d", right, len(rows))
		v.Strips = append(v.Strips, s)
	}
}

// of is a variant's answer to the row, nil for none.
func (e Example) of(variant string) *Response {
	if i := slices.IndexFunc(e.Variants, func(a Response) bool { return a.Variant == variant }); i >= 0 {
		return &e.Variants[i]
	}
	return nil
}

// categoryRows are the exact matches of each variant by category, those with most rows first; nothing where there is one
// category only.
func (r *Results) categoryRows() []rowView {
	count := map[string]int{}
	for _, e := range r.HeldOut.Examples {
		count[e.Category]++
	}
	if len(count) < 2 {
		return nil
	}
	var names []string
	for category := range count {
		names = append(names, category)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	var rows []rowView
	for _, category := range names[:min(len(names), mostCategories)] {
		label := visible.Line(category)
		if category == "" {
			label = "no category"
		}
		row := rowView{Label: label, Cells: []cellView{{Text: fmt.Sprint(count[category])}}}
		shares := make([]Figure, len(r.Variants))
		for i, v := range r.Variants {
			shares[i] = r.exactShare(v.Name, category)
		}
		for _, c := range exactMatch.row(shares) {
			row.Cells = append(row.Cells, cellView{Text: c.text, Best: c.best})
		}
		rows = append(rows, row)
	}
	return rows
}

// exactShare is the share of a category's rows that a variant answered exactly, Unknown where it answered none.
func (r *Results) exactShare(variant, category string) Figure {
	right, n := 0, 0
	for _, e := range r.HeldOut.Examples {
		if a := e.of(variant); e.Category == category && a != nil {
			n++
			if a.ExactMatch {
				right++
			}
		}
	}
	if n == 0 {
		return Unknown
	}
	return Figure(right) / Figure(n)
}

func (r *Results) exampleView(e Example) exampleView {
	const most = 600 // characters of what was asked
	v := exampleView{
		Category: visible.Line(e.Category), Instruction: clip(visible.Text(e.Instruction), most),
		Context: clip(visible.Text(strings.TrimSpace(e.Context)), most), Reference: longText(e.Reference),
	}
	for _, a := range e.Variants {
		at := slices.IndexFunc(r.Variants, func(v VariantResult) bool { return v.Name == a.Variant })
		scores := []string{}
		if a.RougeL.Known() {
			scores = append(scores, "ROUGE-L "+decimals(2)(a.RougeL))
		}
		if a.NLLPerToken.Known() {
			scores = append(scores, "NLL "+plain(a.NLLPerToken))
		}
		v.Answers = append(v.Answers, responseView{name(a.Variant, at), longText(a.Answer), a.ExactMatch, strings.Join(scores, " · ")})
	}
	return v
}
