package eval

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"quartet/visible"
)

// MarkdownTable is the variants' figures as a table of Markdown, the best of a row in bold.
func (r *Results) MarkdownTable() string {
	var out strings.Builder
	head, rule := "|  |", "|---|"
	for _, v := range r.Variants {
		head += " " + markdown(v.Name) + " |"
		rule += "---:|"
	}
	fmt.Fprintln(&out, head)
	fmt.Fprintln(&out, rule)
	for n, row := range r.cells() {
		fmt.Fprintf(&out, "| %s |", metrics[n].label)
		for _, c := range row {
			if c.best {
				c.text = "**" + c.text + "**"
			}
			fmt.Fprintf(&out, " %s |", c.text)
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

// Report is the run as Markdown: the table, the training, the answers side by side, a sample of the held-out rows, the
// settings, the artefacts' digests and the machine.
func (run Run) Report() string {
	r := run.Results
	var out strings.Builder
	fmt.Fprint(&out, "# Four variants of one model\n\n")
	if !run.Started.IsZero() {
		fmt.Fprintf(&out, "Evaluated %s in run %s.\n\n", timeText(run.Started), markdown(run.ID))
	}
	fmt.Fprintln(&out, r.MarkdownTable())
	for _, note := range r.notes(nil) {
		fmt.Fprintf(&out, "- %s\n", markdown(note))
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&out, "- warning: %s\n", markdown(w))
	}
	r.Training.report(&out)
	r.reportAnswers(&out)
	r.reportRows(&out)
	if len(r.Settings) > 0 {
		fmt.Fprint(&out, "\n## Settings\n\n| setting | value |\n|---|---|\n")
		for _, key := range slices.Sorted(maps.Keys(r.Settings)) {
			fmt.Fprintf(&out, "| %s | %s |\n", markdown(key), markdown(settingText(r.Settings[key])))
		}
	}
	run.reportArtefacts(&out)
	m := r.Machine
	fmt.Fprintf(&out, "\n## Machine\n\n%s, %d threads, device %s, %s/%s, %s\n", markdown(m.Processor), m.Threads, markdown(m.Device), markdown(m.OS), markdown(m.Arch), markdown(m.Go))
	return out.String()
}

// WriteReport writes Report's text. The file is replaced as a whole or not at all.
func (run Run) WriteReport(path string) error { return writeFile(path, []byte(run.Report())) }

// settingText is a setting's value: a text as it is, all else as JSON.
func settingText(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

// report writes the training's summary, nothing without training.
func (t *Training) report(out *strings.Builder) {
	if t == nil || len(t.Loss) == 0 {
		return
	}
	last := len(t.Loss) - 1
	fmt.Fprintf(out, "\n## Training\n\n%d steps", len(t.Loss))
	if t.Seconds.Known() {
		fmt.Fprintf(out, " in %s", formatSeconds(t.Seconds))
	}
	fmt.Fprintf(out, "; loss %s at the first step, %s at the last\n\n", lossText(t.Loss[0]), lossText(t.Loss[last]))
	fmt.Fprintf(out, "    loss           %s\n", Sparkline(t.Loss, 60))
	if len(t.LearningRate) > 0 {
		fmt.Fprintf(out, "    learning rate  %s\n", Sparkline(t.LearningRate, 60))
	}
}

func lossText(f Figure) string {
	if !f.Known() {
		return "not a number"
	}
	return fmt.Sprintf("%.4f", float64(f))
}

// Sparkline draws figures as a line of bars of at most width characters, each the mean of its share of the figures. What
// is unknown is a space.
func Sparkline(values []Figure, width int) string {
	n := min(len(values), width)
	means := make([]Figure, n)
	lowest, highest := Unknown, Unknown
	for i := range means {
		var sum float64
		count := 0
		for _, v := range values[i*len(values)/n : (i+1)*len(values)/n] {
			if v.Known() {
				sum, count = sum+float64(v), count+1
			}
		}
		if count == 0 {
			means[i] = Unknown
			continue
		}
		means[i] = Figure(sum / float64(count))
		if !lowest.Known() || means[i] < lowest {
			lowest = means[i]
		}
		if !highest.Known() || means[i] > highest {
			highest = means[i]
		}
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var out strings.Builder
	for _, v := range means {
		switch {
		case !v.Known():
			out.WriteRune(' ')
		case highest == lowest:
			out.WriteRune(bars[0])
		default:
			out.WriteRune(bars[int(float64((v-lowest)/(highest-lowest))*float64(len(bars)-1)+0.5)])
		}
	}
	return out.String()
}

// prompts are the test prompts that a variant answered, each once.
func (r *Results) prompts() (prompts []string) {
	for _, v := range r.Variants {
		for _, a := range v.Answers {
			if !slices.Contains(prompts, a.Prompt) {
				prompts = append(prompts, a.Prompt)
			}
		}
	}
	return prompts
}

// reportAnswers writes a table of the variants' answers for each test prompt.
func (r *Results) reportAnswers(out *strings.Builder) {
	prompts := r.prompts()
	if len(prompts) == 0 {
		return
	}
	fmt.Fprint(out, "\n## Answers to the test prompts\n")
	for _, prompt := range prompts {
		fmt.Fprintf(out, "\n**%s**\n\n|", markdown(prompt))
		for _, v := range r.Variants {
			fmt.Fprintf(out, " %s |", markdown(v.Name))
		}
		fmt.Fprintf(out, "\n|%s\n|", strings.Repeat("---|", len(r.Variants)))
		for _, v := range r.Variants {
			text := unknown
			if i := slices.IndexFunc(v.Answers, func(a Answer) bool { return a.Prompt == prompt }); i >= 0 {
				text = markdown(strings.TrimSpace(v.Answers[i].Answer))
			}
			fmt.Fprintf(out, " %s |", text)
		}
		fmt.Fprintln(out)
	}
}

// reportRows writes the exact matches by category and a sample of the held-out rows.
func (r *Results) reportRows(out *strings.Builder) {
	if len(r.HeldOut.Examples) == 0 {
		return
	}
	fmt.Fprint(out, "\n## Held-out rows\n")
	if categories := r.categoryRows(); len(categories) > 0 {
		fmt.Fprint(out, "\n| exact match | rows |")
		for _, v := range r.Variants {
			fmt.Fprintf(out, " %s |", markdown(v.Name))
		}
		fmt.Fprintf(out, "\n|---|%s\n", strings.Repeat("---:|", 1+len(r.Variants)))
		for _, row := range categories {
			fmt.Fprintf(out, "| %s |", markdown(row.Label))
			for _, c := range row.Cells {
				if c.Best {
					c.Text = "**" + c.Text + "**"
				}
				fmt.Fprintf(out, " %s |", c.Text)
			}
			fmt.Fprintln(out)
		}
	}
	for _, e := range r.sample() {
		fmt.Fprintf(out, "\n**%s**\n\n", markdown(e.Instruction))
		if e.Context != "" {
			fmt.Fprintf(out, "> %s\n\n", markdown(strings.TrimSpace(e.Context)))
		}
		fmt.Fprintf(out, "|  |  | %s |\n|---|---|---|\n", markdown(strings.TrimSpace(e.Reference)))
		for _, a := range e.Variants {
			mark := "✗"
			if a.ExactMatch {
				mark = "✓"
			}
			fmt.Fprintf(out, "| %s | %s | %s |\n", markdown(a.Variant), mark, markdown(strings.TrimSpace(a.Answer)))
		}
	}
}

// reportArtefacts writes what was evaluated, with its digests.
func (run Run) reportArtefacts(out *strings.Builder) {
	if len(run.Artefacts) == 0 {
		return
	}
	fmt.Fprint(out, "\n## Artefacts\n\n| artefact | file | size | digest |\n|---|---|---:|---|\n")
	for _, a := range run.Artefacts {
		for _, f := range a.Files {
			fmt.Fprintf(out, "| %s | %s | %s | %s |\n", markdown(a.Name), markdown(f.Name), formatBytes(f.Bytes), markdown(f.Digest))
		}
	}
}

var markdownEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "&#64;", "\n", "<br>", "\t", " ",
	`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "|", `\|`, "~", `\~`, "#", `\#`, "$", `\$`)

// markdown is untrusted text for a place of one line in Markdown: nothing in it is markup, a link or a mention.
func markdown(text string) string { return markdownEscapes.Replace(visible.Text(text)) }
