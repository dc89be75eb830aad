package hub

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	trainWord = regexp.MustCompile(`(?i)(^|[-._ 0-9/])train(ing)?([-._ 0-9/]|$)`)
	otherWord = regexp.MustCompile(`(?i)(^|[-._ 0-9/])(test(ing)?|val(id(ation)?)?|dev|eval(uation)?)([-._ 0-9/]|$)`)
	shardOf   = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})[.-]`)
)

// trainingFiles are the files of a dataset that hold its training rows, by the names that the hub's libraries go by: those of the
// split train, all of them shards of one folder; without a split's name on any file, all files. The only file is always taken.
func trainingFiles(dataset string, files []File) ([]File, error) {
	if len(files) == 1 {
		return files, nil
	}
	named := func(word *regexp.Regexp) (all []File) {
		for _, f := range files {
			if word.MatchString(f.Name) {
				all = append(all, f)
			}
		}
		return all
	}
	remedy := "bring it with `quartet download --dataset " + dataset + "` and put the path of a file into dataset.name"
	train := named(trainWord)
	switch {
	case len(train) > 0:
	case len(named(otherWord)) > 0:
		return nil, fmt.Errorf("none of its %d files is named as the split train: %s; %s", len(files), some(files), remedy)
	default:
		train = files
	}
	var folders []string
	for _, f := range train {
		if dir := path.Dir(f.Name); !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
	}
	if len(folders) > 1 {
		return nil, fmt.Errorf("it has training rows in %d folders, %s, which may be different datasets; %s", len(folders), strings.Join(folders[:min(len(folders), 4)], ", "), remedy)
	}
	return oneSeries(train, remedy)
}

// oneSeries are the files whose names tell of one series of shards, all of which must be there: the split that is called train where
// others have longer names, as in train_sft. Files that are no shards are taken as they are.
func oneSeries(files []File, remedy string) ([]File, error) {
	series := map[string][]File{} // by what the shards' names have in common; "" those that are none
	for _, f := range files {
		stem := ""
		if m := shardOf.FindStringSubmatch(f.Name); m != nil {
			stem = m[1]
		}
		series[stem] = append(series[stem], f)
	}
	stems := slices.Sorted(maps.Keys(series))
	at := 0
	if len(stems) > 1 {
		at = slices.IndexFunc(stems, func(stem string) bool { return path.Base(stem) == "train" })
	}
	if at < 0 {
		return nil, fmt.Errorf("its training rows have several names, %s, which may be different datasets; %s", some(files), remedy)
	}
	chosen := series[stems[at]]
	if stems[at] == "" {
		return chosen, nil
	}
	return chosen, wholeShards(chosen)
}

// wholeShards is an error unless each shard of a series is there once.
func wholeShards(files []File) error {
	first := shardOf.FindStringSubmatch(files[0].Name)
	of, _ := strconv.Atoi(first[3])
	there := map[string]bool{}
	for _, f := range files {
		m := shardOf.FindStringSubmatch(f.Name)
		if m[3] != first[3] || there[m[2]] {
			return fmt.Errorf("%s and %s are of different files or the same shard twice; choose a revision that has each once", files[0].Name, f.Name)
		}
		if n, _ := strconv.Atoi(m[2]); n >= of {
			return fmt.Errorf("%s is a shard beyond the last; choose a revision whose shards are numbered from 0", f.Name)
		}
		there[m[2]] = true
	}
	if len(there) < of {
		return fmt.Errorf("%d of the %d files are there that %s is one of; choose a revision that has all", len(there), of, files[0].Name)
	}
	return nil
}

// some lists the first few names.
func some(files []File) string {
	const most = 4
	var names []string
	for _, f := range files[:min(len(files), most)] {
		names = append(names, f.Name)
	}
	if len(files) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}
