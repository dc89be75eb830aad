package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"quartet/kernels/cuda"
	"quartet/visible"
)

// gpu is what `quartet devices --json` prints of a GPU.
type gpu struct {
	cuda.Info
	TF32 bool `json:"tf32"`
	BF16 bool `json:"bf16"`
}

// runDevices is `quartet devices [--json]`.
func runDevices(_ context.Context, args []string, std streams) error {
	f := flags("devices", "", std)
	asJSON := f.Bool("json", false, "print the GPUs as JSON")
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errUsage{errors.New("devices takes no arguments")}
	}
	infos, err := cuda.Devices()
	if *asJSON {
		gpus := []gpu{}
		for _, i := range infos {
			gpus = append(gpus, gpu{i, i.TF32(), i.BF16()})
		}
		return printJSON(std.out, gpus)
	}
	if err != nil {
		fmt.Fprintf(std.out, "no GPU can be used, the CPU does the work: %v\n", err)
		return nil
	}
	table := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "GPU\tname\tmemory\tcompute capability\tprocessors\tbf16\ttf32\tdriver's CUDA")
	for _, i := range infos {
		fmt.Fprintf(table, "%d\t%s\t%.1f GiB\t%d.%d\t%d\t%s\t%s\t%d.%d\n", i.Index, visible.Line(i.Name), float64(i.MemoryTotal)/(1<<30), i.Major, i.Minor, i.Processors,
			yes(i.BF16()), yes(i.TF32()), i.DriverVersion/1000, i.DriverVersion%1000/10)
	}
	return table.Flush()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
