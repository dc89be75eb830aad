package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Text is the report as lines of a table, with the machine above and the reasons for what is missing below.
func (r *Report) Text() string {
	var t strings.Builder
	m := r.Machine
	fmt.Fprintf(&t, "%s, %d cores, %d threads, %s of memory, %s, %s/%s", m.Processor, m.Cores, m.Threads, bytes(m.MemoryBytes), m.Go, m.OS, m.Arch)
	if m.GPU != "" {
		fmt.Fprintf(&t, "\n%s: memory is copied at %s GB/s; the largest 16-bit products reach %s TFLOP/s", m.GPU, digits(m.ReadBytesPerSecond/1e9), digits(m.ProductFlops/1e12))
		fmt.Fprintf(&t, "\n%s, %s M parameters\n\n", r.Model.Name, digits(float64(r.Model.Parameters)/1e6))
		return t.String() + r.table()
	}
	fmt.Fprintf(&t, "\nbackend %s", m.Device)
	if m.Path != "" {
		fmt.Fprintf(&t, " with its %s kernels", m.Path)
	}
	fmt.Fprintf(&t, "; the processor has %s", strings.Join(m.Features, " "))
	fmt.Fprintf(&t, "\nmemory is read at %s GB/s", digits(m.ReadBytesPerSecond/1e9))
	if m.RegisterFlops > 0 {
		fmt.Fprintf(&t, "; fp32 multiply-adds on %s reach %s GFLOP/s", m.FlopsFrom, digits(m.RegisterFlops/1e9))
	}
	fmt.Fprintf(&t, "; the backend's large fp32 product %s GFLOP/s", digits(m.ProductFlops/1e9))
	fmt.Fprintf(&t, "\n%s, %s M parameters\n\n", r.Model.Name, digits(float64(r.Model.Parameters)/1e6))

	t.WriteString(r.table())
	fmt.Fprintf(&t, "the program's memory was %s at most, mapped weights included\n", bytes(r.PeakBytes))
	flops := map[string]string{"registers": "the multiply-adds on registers", "tiles": "bfloat16 tiles, of whose products five make one of fp32",
		"product": "the backend's own large product"}[m.FlopsFrom]
	fmt.Fprintf(&t, `
The floor is the larger of two times, given as tokens a second: that of the weights, keys and values which the work must
read, at the bandwidth of a buffer as large as the weights (up to 1 GiB), and that of its fp32 products and attention, at the
rate of %s.
"got" is how much of its threads' time the program was given. Roofs are the best of many short bursts, so where other programs
took the rest, the shares are too low.
`, flops)
	return t.String()
}

// table is the rows, and below them what was left out.
func (r *Report) table() string {
	var t strings.Builder
	cells := [][]string{{"", "tok/s", "quartiles", "floor", "share", "set by", "got", "runs", "work"}}
	onGPU := r.Machine.GPU != ""
	if onGPU {
		cells[0][6] = "memory"
	}
	for _, row := range r.Rows {
		cells = append(cells, []string{row.Name, digits(row.TokensPerSecond), digits(row.Spread[0]) + "–" + digits(row.Spread[1]),
			digits(row.Floor), fmt.Sprintf("%.1f %%", 100*row.Share), row.FloorFrom, row.gotOrMemory(onGPU), strconv.Itoa(row.Runs), row.Work})
	}
	width := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	for _, row := range cells {
		var line strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(c)))
			if left := i == 0 || i == len(row)-1; left {
				line.WriteString(c + pad)
			} else {
				line.WriteString(pad + c)
			}
			line.WriteString("  ")
		}
		t.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	for _, l := range r.LeftOut {
		fmt.Fprintf(&t, "%s was left out: %s\n", l.Name, l.Reason)
	}
	return t.String()
}

// gotOrMemory is how much of the processor a row was given, or on a GPU how much of its memory it took.
func (row Row) gotOrMemory(onGPU bool) string {
	if onGPU {
		return bytes(row.DeviceBytes)
	}
	return fmt.Sprintf("%.0f %%", 100*row.Got)
}

// digits writes a number with three digits, or all those before the point.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}
