package kernels

import (
	"math"
	"testing"
)

// TestDynamicMaps holds the maps against the entries that formats of bitsandbytes' checkpoints are known by.
func TestDynamicMaps(t *testing.T) {
	if SignedMap[127] != 0 || SignedMap[255] != 1 || SignedMap[0] != -0.99296874 {
		t.Errorf("signed map: zero %v, top %v, bottom %v", SignedMap[127], SignedMap[255], SignedMap[0])
	}
	if UnsignedMap[0] != 0 || UnsignedMap[255] != 1 || UnsignedMap[254] != 0.9964844 {
		t.Errorf("unsigned map: bottom %v, top %v, below it %v", UnsignedMap[0], UnsignedMap[255], UnsignedMap[254])
	}
	for i := range 255 {
		if SignedMap[i] >= SignedMap[i+1] || UnsignedMap[i] >= UnsignedMap[i+1] {
			t.Fatalf("maps do not ascend at %d", i)
		}
	}
}

func TestDynamicCodes(t *testing.T) {
	for name, m := range map[string]struct {
		values *[256]float32
		code   func(float32) byte
	}{"signed": {&SignedMap, SignedCode}, "unsigned": {&UnsignedMap, UnsignedCode}} {
		for i, v := range m.values {
			if got := m.code(v); got != byte(i) {
				t.Errorf("%s: code of entry %d is %d", name, i, got)
			}
			if i == 255 {
				continue
			}
			mid := float32(v+m.values[i+1]) * 0.5
			even := byte(i + i&1)
			if got := m.code(mid); got != even {
				t.Errorf("%s: midpoint above %d gives %d, want the even code %d", name, i, got, even)
			}
			if got := m.code(math.Nextafter32(mid, 2)); got != byte(i+1) {
				t.Errorf("%s: just above the midpoint of %d gives %d", name, i, got)
			}
		}
		if top, bottom := m.code(3), m.code(-3); top != 255 || bottom != 0 {
			t.Errorf("%s: beyond the ends: %d and %d", name, bottom, top)
		}
	}
}

func TestNF4Thresholds(t *testing.T) {
	for i, threshold := range NF4Thresholds {
		mid := (float64(NF4Values[i]) + float64(NF4Values[i+1])) / 2
		if math.Abs(float64(threshold)-mid) > 3e-8 {
			t.Errorf("threshold %d is %v, its values' midpoint %v", i, threshold, mid)
		}
		if got := NF4Code(threshold); got != byte(i) {
			t.Errorf("tie at threshold %d gives code %d", i, got)
		}
	}
}

func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		f := F16ToF32(uint16(h))
		if back := F32ToF16(f); f == f && back != uint16(h) {
			t.Fatalf("float16 %04x: %v comes back as %04x", h, f, back)
		}
		g := BF16ToF32(uint16(h))
		if back := F32ToBF16(g); g == g && back != uint16(h) {
			t.Fatalf("bfloat16 %04x: %v comes back as %04x", h, g, back)
		}
		// Halfway to the next value goes to the even pattern, a little more or less to the nearer one.
		if h&0x7fff >= 0x7bff {
			continue
		}
		next := F16ToF32(uint16(h + 1))
		mid := float32((float64(f) + float64(next)) / 2)
		even := uint16(h + h&1)
		if got := F32ToF16(mid); got != even {
			t.Fatalf("float16 halfway above %04x: %04x", h, got)
		}
		if got := F32ToF16(math.Nextafter32(mid, f)); got != uint16(h) {
			t.Fatalf("float16 below halfway above %04x: %04x", h, got)
		}
		if got := F32ToF16(math.Nextafter32(mid, next)); got != uint16(h+1) {
			t.Fatalf("float16 above halfway above %04x: %04x", h, got)
		}
	}
	for f, want := range map[float32]uint16{65504: 0x7bff, 65519.99: 0x7bff, 65520: 0x7c00, 1e30: 0x7c00, -1e30: 0xfc00} {
		if got := F32ToF16(f); got != want {
			t.Errorf("float16 of %v is %04x, want %04x", f, got, want)
		}
	}
	if nan := float32(math.NaN()); F32ToF16(nan)&0x7fff <= 0x7c00 || F32ToBF16(nan)&0x7fff <= 0x7f80 {
		t.Error("a NaN does not stay one")
	}
}
