package tui

import (
	"fmt"
	"strings"
)

// resultLines is the table of the variants with the best of each row marked.
func (m *model) resultLines(w, h int) []string {
	t := m.theme
	if m.state.results == nil {
		return m.advice(w, fmt.Sprintf("no results yet; press %s to run what is stale, which ends with the evaluation", m.keyOf("run_all")))
	}
	var all []string
	for text := range strings.SplitSeq(strings.TrimRight(m.state.results.Table(max(w-2, 20), false), "\n"), "\n") {
		l := t.line(w).add(plain, " ")
		text = t.safe(text)
		for text != "" {
			star := strings.Index(text, " *")
			if star < 0 {
				l.add(plain, text)
				break
			}
			from := strings.LastIndex(text[:star], "  ") + 2
			if from < 2 {
				from = 0
			}
			l.add(plain, text[:from]).add(good, text[from:star]).add(good, " "+t.glyph.best)
			text = text[star+2:]
		}
		all = append(all, l.String())
	}
	if training := m.state.results.Training; training != nil && len(training.Loss) > 0 {
		all = append(all, "", t.line(w).add(dim, fmt.Sprintf(" training: loss %s at the first step, %s at the last of %d, %s", digits(float64(training.Loss[0])), digits(float64(training.Loss[len(training.Loss)-1])), len(training.Loss), seconds(float64(training.Seconds)))).String())
	}
	for i := range all {
		if all[i] == "" {
			all[i] = spaces(w)
		}
	}
	return m.results.window(all, h)
}
