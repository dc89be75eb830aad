package train

import (
	"math"
	"slices"
	"testing"

	"quartet/dataset"
)

func upTo(n int) []int {
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	return rows
}

func TestEveryEpochIsAnotherPermutation(t *testing.T) {
	o := newOrder(Options{Seed: 3}, upTo(50))
	seen := map[int][]int{}
	for epoch := range 4 {
		rows := slices.Clone(o.ofEpoch(epoch))
		for other, s := range seen {
			if slices.Equal(s, rows) {
				t.Errorf("epochs %d and %d have the same order", other, epoch)
			}
		}
		seen[epoch] = rows
		if sorted := slices.Sorted(slices.Values(rows)); !slices.Equal(sorted, upTo(50)) {
			t.Errorf("epoch %d is no permutation: %v", epoch, sorted)
		}
	}
	if again := newOrder(Options{Seed: 3}, upTo(50)).ofEpoch(3); !slices.Equal(again, seen[3]) {
		t.Error("an epoch's order depends on the epochs that were asked for before")
	}
	if other := newOrder(Options{Seed: 4}, upTo(50)).ofEpoch(0); slices.Equal(other, seen[0]) {
		t.Error("the seed makes no difference")
	}
}

func TestShuffleIsFair(t *testing.T) {
	const rounds = 6000
	count := map[[3]int]int{}
	for epoch := range rounds {
		rows := upTo(3)
		shuffle(rows, 1, epoch)
		count[[3]int(rows)]++
	}
	for order, n := range count {
		if math.Abs(float64(n)-rounds/6) > 5*math.Sqrt(rounds/6) {
			t.Errorf("order %v came %d times of %d", order, n, rounds)
		}
	}
	if len(count) != 6 {
		t.Errorf("%d of 6 orders came", len(count))
	}
}

func TestGroupsStayInTheirEpoch(t *testing.T) {
	o := newOrder(Options{BatchSize: 2, Accumulation: 2, Seed: 1}, upTo(10))
	var sizes []int
	for step := range 6 {
		sizes = append(sizes, len(o.group(step)))
	}
	if want := []int{4, 4, 2, 4, 4, 2}; !slices.Equal(sizes, want) {
		t.Errorf("group sizes %v, want %v", sizes, want)
	}
	if first, second := slices.Clone(o.group(0)), o.group(3); !slices.Equal(second, o.ofEpoch(1)[:4]) || slices.Equal(first, second) {
		t.Errorf("step 3 trains %v, which does not start epoch 1: %v", second, o.ofEpoch(1))
	}
}

func TestGivenOrderLeavesOutUntrainedRows(t *testing.T) {
	o := newOrder(Options{BatchSize: 1, Accumulation: 2, Order: []int{2, 1, 0, 3, 3, 0, 1, 2}}, []int{0, 2, 3})
	var got [][]int
	for step := range 4 {
		got = append(got, slices.Clone(o.group(step)))
	}
	want := [][]int{{2, 0}, {3}, {3, 0}, {2}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("groups %v, want %v", got, want)
	}
}

func TestPacks(t *testing.T) {
	var data []dataset.Example
	for _, n := range []int{5, 3, 9, 2} {
		e := dataset.Example{IDs: make([]int32, n), Labels: make([]int32, n)}
		e.Labels[1] = -100
		data = append(data, e)
	}
	group := []int{3, 0, 1, 2}
	for _, c := range []struct {
		lossPer string
		batch   int
		limit   int
		want    [][]int
	}{
		{"token", 1, 0, [][]int{{3, 0, 1, 2}}},
		{"token", 1, 10, [][]int{{3, 0, 1}, {2}}},
		{"token", 1, 4, [][]int{{3}, {0}, {1}, {2}}},
		{"micro_batch", 2, 0, [][]int{{3, 0}, {1, 2}}},
		{"micro_batch", 3, 8, [][]int{{3, 0}, {1}, {2}}},
	} {
		var got [][]int
		for _, p := range packs(data, group, Options{LossPer: c.lossPer, BatchSize: c.batch}, c.limit) {
			got = append(got, p.rows)
			b := p.batch(data)
			if len(b.IDs) != p.tokens || int(b.Offsets[len(p.rows)]) != p.tokens {
				t.Errorf("%+v: pack of %d tokens became a batch of %d", c, p.tokens, len(b.IDs))
			}
			for i, row := range p.rows {
				if int(b.Rows[i]) != row {
					t.Errorf("%+v: row %d has the dropout key of row %d", c, row, b.Rows[i])
				}
			}
		}
		if !slices.EqualFunc(got, c.want, slices.Equal) {
			t.Errorf("%+v: packs %v", c, got)
		}
	}
}

func TestTokensShareTheLoss(t *testing.T) {
	data := []dataset.Example{
		{IDs: make([]int32, 4), Labels: []int32{1, 1, 1, 1}},    // 3 targets
		{IDs: make([]int32, 4), Labels: []int32{1, 1, -100, 1}}, // 2
		{IDs: make([]int32, 2), Labels: []int32{-100, 1}},       // 1
	}
	for lossPer, want := range map[string][]float64{"token": {1. / 6, 1. / 6, 1. / 6}, "micro_batch": {1. / 9, 1. / 6, 1. / 3}} {
		for i, p := range packs(data, []int{0, 1, 2}, Options{LossPer: lossPer, BatchSize: 1}, 1) {
			if math.Abs(p.share-want[i]) > 1e-15 {
				t.Errorf("%s: a token of row %d counts %g, want %g", lossPer, i, p.share, want[i])
			}
		}
	}
}

func TestScaler(t *testing.T) {
	s := newScaler(true)
	for range growAfter - 1 {
		s.good()
	}
	if s.Scale != 65536 {
		t.Errorf("scale %g before %d good steps", s.Scale, growAfter)
	}
	s.good()
	if s.Scale != 131072 || s.Good != 0 {
		t.Errorf("scale %g after %d good steps, want doubled", s.Scale, growAfter)
	}
	s.good()
	s.overflow()
	s.overflow()
	if want := (scaler{Scale: 32768, Good: 0, Overflows: 2}); s != want {
		t.Errorf("after two overflows %+v, want %+v", s, want)
	}
	s.good()
	if s.Overflows != 0 {
		t.Error("a good step does not end a row of overflows")
	}
	if s := newScaler(false); s.Scale != 1 {
		t.Errorf("scale %g without fp16", s.Scale)
	}
}
