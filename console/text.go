package console

import (
	"fmt"
	"strings"
	"time"

	"quartet/event"
	"quartet/visible"
)

// PlanText is a plan as a table: each stage's state, whether it runs and why, and what it is predicted to take.
func PlanText(plan []event.PlanPart) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%-14s %-12s %-5s %9s %9s %8s  %s\n", "stage", "state", "runs", "memory", "disk", "time", "why")
	for _, p := range plan {
		runs := "no"
		if p.Run {
			runs = "yes"
		}
		seconds := "–"
		if p.Seconds > 0 {
			seconds = duration(p.Seconds)
		}
		why := p.Reason
		if p.FetchBytes > 0 {
			why += " (" + Bytes(p.FetchBytes) + ")"
		}
		for _, u := range p.Uploads {
			why += ", " + UploadText(u)
		}
		fmt.Fprintf(&out, "%s\n", strings.TrimRight(fmt.Sprintf("%-14s %-12s %-5s %9s %9s %8s  %s", p.Stage, p.State, runs, Bytes(p.MemoryBytes), Bytes(p.DiskBytes), seconds, visible.Line(why)), " "))
	}
	return out.String()
}

// UploadText says what goes where.
func UploadText(u event.UploadPart) string {
	if u.Bytes == 0 {
		return u.Variant + " to " + u.To
	}
	return fmt.Sprintf("%s (%s) to %s", u.Variant, Bytes(u.Bytes), u.To)
}

// Bytes is a size in decimal units, "–" for none.
func Bytes(n int64) string {
	if n <= 0 {
		return "–"
	}
	value, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if value < 1000 {
			break
		}
		value, unit = value/1000, u
	}
	if unit == "B" || value >= 100 {
		return fmt.Sprintf("%.0f %s", value, unit)
	}
	return fmt.Sprintf("%.3g %s", value, unit)
}

// duration is a time as people write it: 0.4 s, 12.3 s, 2m05s, 1h02m.
func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", seconds)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

func name(stage string) string { return fmt.Sprintf("%-13s", stage) }

// progressText is a progress line: a bar where the total is known, the count, the rate and the time left.
func progressText(p event.ProgressPart) string {
	count := func(n int64) string {
		if p.Unit == "bytes" {
			return Bytes(max(n, 1))
		}
		return fmt.Sprint(n)
	}
	text := count(p.Done)
	if p.Total > 0 {
		const width = 24
		full := int(min(max(p.Done*width/p.Total, 0), width))
		text = fmt.Sprintf("%s%s %3d %%  %s/%s", strings.Repeat("█", full), strings.Repeat("░", width-full), p.Done*100/p.Total, text, count(p.Total))
	}
	if p.Unit != "bytes" {
		text += " " + p.Unit
	}
	if p.Rate > 0 && p.Unit == "bytes" {
		text += "  " + Bytes(int64(p.Rate)) + "/s"
	} else if p.Rate > 0 {
		text += fmt.Sprintf("  %.3g %s/s", p.Rate, p.Unit)
	}
	if p.ETA > 0 {
		text += "  ETA " + duration(p.ETA)
	}
	if p.Label != "" {
		text = visible.Line(p.Label) + "  " + text
	}
	return text
}

// figures are what a person wants to know of a finished stage; the manifest has the rest.
func figures(f map[string]event.Float) string {
	var text strings.Builder
	for _, known := range []struct{ key, format string }{
		{"final_loss", ", loss %.4g at the last step"},
		{"tokens_per_second", ", %.0f tok/s"},
		{"rms_error", ", quantisation error %.2f %%"},
		{"merged_fp16_error", "; against the exact merge: %.2f %% merged in fp16"},
		{"merged_dequantized_error", ", %.2f %% into the dequantised base"},
	} {
		if v, ok := f[known.key]; ok {
			if strings.Contains(known.format, "%%") {
				v *= 100
			}
			fmt.Fprintf(&text, known.format, float64(v))
		}
	}
	if v, ok := f["disk_bytes"]; ok {
		text.WriteString(", " + Bytes(int64(v)) + " on disk")
	}
	return text.String()
}
