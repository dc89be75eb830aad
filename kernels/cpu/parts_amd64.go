package cpu

import (
	"sync"
	"syscall"

	"golang.org/x/sys/cpu"

	"quartet/kernels"
)

// amxLoops are avx512Loops but for products of many tokens.
var amxLoops = func() loops {
	l := avx512Loops
	l.parts = &parts{
		rows: func(dst []uint16, rows, count int, t kernels.Tensor, at int, absmax []float32, ahead int) {
			switch t.DType {
			case kernels.F16:
				amxRowsF16(rows, count/32, &dst[0], &t.F16s()[at], uintptr(2*t.Cols), uintptr(2*ahead))
			case kernels.BF16:
				amxRowsBF16(rows, count/32, &dst[0], &t.F16s()[at], uintptr(2*t.Cols), uintptr(2*ahead))
			case kernels.NF4:
				amxRowsNF4(rows, count/wholeBlock, &dst[0], &t.Host[at/2], uintptr(t.Cols/2), &absmax[0], uintptr(t.Cols/wholeBlock*4), uintptr(ahead/2))
			}
		},
		panel: func(dst []uint16, panel []float32) { amxSplit(len(panel)/(32*partTile), &dst[0], &panel[0]) },
		product: func(sums []float32, blocks, panels, count int, rows, tokens []uint16, panel int) {
			amxProduct(blocks, panels, count/32, &rows[0], &tokens[0], uintptr(2*panel), &sums[0], uintptr(4*partTile*panels))
		},
		rowsThree: func(dst []uint16, rows, count int, x []float32, stride int) {
			amxRowsThree(rows, count/32, &dst[0], &x[0], uintptr(4*stride), 0)
		},
		columns: func(dst []uint16, count int, t kernels.Tensor, at, ahead int) {
			switch t.DType {
			case kernels.F16:
				amxColumnsF16(count/32, &dst[0], &t.F16s()[at], uintptr(2*t.Cols), uintptr(2*ahead))
			case kernels.BF16:
				amxColumnsBF16(count/32, &dst[0], &t.F16s()[at], uintptr(2*t.Cols), uintptr(2*ahead))
			case kernels.F32: // that NF4 stands for
				amxColumnsF32(count/32, &dst[0], &t.F32s()[at], uintptr(4*t.Cols), uintptr(4*ahead))
			}
		},
		productBack: func(sums []float32, sumsRow, blocks, panels, count int, rows, columns []uint16) {
			amxProductBack(blocks, panels, count/32, &rows[0], &columns[0], 2*columnWords, &sums[0], uintptr(4*sumsRow))
		},
	}
	return l
}()

// hasTiles reports whether the processor has tiles of bfloat16 and the system lets this process use them, for which it must
// be asked once: what a thread keeps grows by 8 KB with its first tile.
var hasTiles = sync.OnceValue(func() bool {
	const requestPermission, tileData = 0x1023, 18
	if !cpu.X86.HasAMXTile || !cpu.X86.HasAMXBF16 {
		return false
	}
	_, _, err := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return err == 0
})
