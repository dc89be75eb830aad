package kernels

import "math/bits"

// DropoutKey names one use of dropout. With a token's row and position and an element's column it determines whether
// that element is kept, so a mask depends neither on packing nor on what ran before, and is recomputed rather than stored.
type DropoutKey struct {
	Seed  uint64
	Step  uint32 // optimiser step
	Layer uint16
	Site  uint16 // which dropout of the layer
}

// DropoutKeep fills keep with the mask of one token: Philox4x32-10 (Salmon et al. 2011) keyed by the seed (its upper
// half ^ layer<<16 ^ site), with the counter (column/4, position, row, step); an element is kept when its 32 bits are at least p·2³².
func DropoutKeep(keep []bool, p float32, key DropoutKey, row, position int32) {
	threshold := uint32(min(float64(p)*(1<<32), 1<<32-1))
	for i := 0; i < len(keep); i += 4 {
		r := Philox([4]uint32{uint32(i / 4), uint32(position), uint32(row), key.Step},
			[2]uint32{uint32(key.Seed), uint32(key.Seed>>32) ^ uint32(key.Layer)<<16 ^ uint32(key.Site)})
		for j := i; j < min(i+4, len(keep)); j++ {
			keep[j] = r[j-i] >= threshold
		}
	}
}

// Philox is the Philox4x32-10 block function: four random words for a counter and a key.
func Philox(c [4]uint32, k [2]uint32) [4]uint32 {
	for range 10 {
		hi0, lo0 := bits.Mul32(0xD2511F53, c[0])
		hi1, lo1 := bits.Mul32(0xCD9E8D57, c[2])
		c = [4]uint32{hi1 ^ c[1] ^ k[0], lo1, hi0 ^ c[3] ^ k[1], lo0}
		k[0] += 0x9E3779B9
		k[1] += 0xBB67AE85
	}
	return c
}
