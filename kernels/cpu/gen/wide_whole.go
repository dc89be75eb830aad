package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wideWhole is whole with 512-bit vectors.
func wideWhole() {
	wholeSplit("wideWholeSplit", 1)
	steps := wholeCodebook()
	twice := GLOBL("nf4_steps", RODATA|NOPTR)
	for i := range 2 * len(steps) {
		DATA(2*i, U16(uint16(steps[i%len(steps)])))
	}
	look := func() wholeWeights { return wideWholeLookUp(twice) }
	for tokens := 1; tokens <= 3; tokens++ {
		wholeDot(fmt.Sprintf("wideWholeDot%d", tokens), tokens, wholeVectors{ZMM, wideZero, wideBroadcast, wideLanes, look, 64})
	}
}

// wideWholeLookUp looks words up at once. VPERMW reads five bits of a byte that was widened to a word, so the codebook
// stands in its table twice.
func wideWholeLookUp(twice Mem) wholeWeights {
	table := ZMM()
	VMOVUPS(twice, table)
	return func(codes Register, body func(i int, weights VecVirtual)) {
		odd, even := ZMM(), ZMM()
		VPMOVZXBW(Mem{Base: codes}, odd)
		VPSRLW(U8(4), odd, even)
		VPERMW(table, even, even)
		body(0, even)
		VPERMW(table, odd, odd)
		body(1, odd)
	}
}
