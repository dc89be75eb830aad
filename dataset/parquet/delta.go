package parquet

// deltas reads n numbers that are stored as differences, packed in blocks of miniblocks, and returns what follows them.
func deltas(data []byte, n int64) (all []int64, rest []byte, err error) {
	d := &decoder{data: data}
	block, minis, count, last := d.unsigned(), d.unsigned(), d.unsigned(), d.signed()
	if d.err != nil || minis == 0 || minis > 512 || block > 1<<16 || block%minis != 0 || block/minis%8 != 0 || block == 0 || count != uint64(n) {
		return nil, nil, errDamaged
	}
	each := int(block / minis)
	if n > 0 {
		all = append(all, last)
	}
	for int64(len(all)) < n {
		least := d.signed()
		widths := d.take(minis)
		for _, width := range widths {
			if int64(len(all)) >= n { // the last miniblocks of the last block hold nothing
				break
			}
			if width > 64 {
				return nil, nil, errDamaged
			}
			packed := d.take(uint64(each) * uint64(width) / 8)
			if d.err != nil {
				break
			}
			for i := 0; i < each && int64(len(all)) < n; i++ {
				var v uint64
				for b := range int(width) {
					bit := i*int(width) + b
					v |= uint64(packed[bit/8]>>(bit%8)&1) << b
				}
				last += least + int64(v)
				all = append(all, last)
			}
		}
		if d.err != nil {
			return nil, nil, errDamaged
		}
	}
	return all, data[d.pos:], nil
}

// behindLengths reads n texts whose lengths stand before them all, as differences.
func behindLengths(data []byte, n int64) ([]string, error) {
	lengths, data, err := deltas(data, n)
	if err != nil {
		return nil, err
	}
	all := make([]string, len(lengths))
	for i, length := range lengths {
		if length < 0 || length > int64(len(data)) {
			return nil, errDamaged
		}
		all[i], data = string(data[:length]), data[length:]
	}
	return all, nil
}

// behindPrefixes reads n texts that each begin like the one before for a length.
func behindPrefixes(data []byte, n int64) ([]string, error) {
	shared, data, err := deltas(data, n)
	if err != nil {
		return nil, err
	}
	all, err := behindLengths(data, n)
	if err != nil {
		return nil, err
	}
	before, total := "", 0
	for i, length := range shared {
		if length < 0 || length > int64(len(before)) {
			return nil, errDamaged
		}
		if total += int(length) + len(all[i]); total > maxPage {
			return nil, errDamaged
		}
		before = before[:length] + all[i]
		all[i] = before
	}
	return all, nil
}
