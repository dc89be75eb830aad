package doctor

import (
	"fmt"
	"strings"

	"quartet/visible"
)

// Text is the report for a terminal: what it is, what loads it, a line for each finding, and their number.
func (r *Report) Text() string {
	var out strings.Builder
	r.text(&out)
	plural := func(n int, what string) string {
		return fmt.Sprintf("%d %s%s", n, what, map[bool]string{n != 1: "s"}[true])
	}
	fmt.Fprintf(&out, "%s, %s\n", plural(r.Count(Error), "error"), plural(r.Count(Warning), "warning"))
	return out.String()
}

func (r *Report) text(out *strings.Builder) {
	line := func(format string, args ...any) {
		out.WriteString(visible.Line(fmt.Sprintf(format, args...)) + "\n")
	}
	title := r.Path + ": " + string(r.Kind)
	if r.About != "" {
		title += ", " + r.About
	}
	line("%s", title)
	if len(r.Verdicts) > 0 {
		var all []string
		for _, v := range r.Verdicts {
			all = append(all, fmt.Sprintf("%s %s", v.Library, map[bool]string{true: "yes", false: "NO"}[v.Loads]))
		}
		line("  loads in: %s", strings.Join(all, ", "))
	}
	for _, level := range []Level{Error, Warning, Note} {
		for _, f := range r.Findings {
			if f.Level == level {
				line("  %-8s %s", f.Level, strings.TrimPrefix(f.Where+": "+f.Text, ": "))
			}
		}
	}
	for _, p := range r.Parts {
		out.WriteString("\n")
		p.text(out)
	}
}
