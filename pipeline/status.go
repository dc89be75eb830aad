package pipeline

import "quartet/event"

// Predict tells what a run with these options would do and why, and what each of its stages would need. It changes nothing
// on disk but the memory of digests.
func Predict(w *Workspace, o Options) ([]event.PlanPart, error) {
	if err := w.CheckStages(o.Stages); err != nil {
		return nil, err
	}
	_, plan, err := w.plan(o)
	if err != nil {
		return nil, err
	}
	return plan.parts(), nil
}

// Status is how each stage stands: its state and, of its artefact, the bytes on disk, the memory that making it took
// where that was measured, and the seconds. Run tells which stages `+"`quartet run`"+` would do. It changes nothing on disk but
// the memory of digests.
func Status(w *Workspace) ([]event.PlanPart, error) {
	all, plan, err := w.plan(Options{})
	if err != nil {
		return nil, err
	}
	parts := plan.parts()
	for i := range parts {
		p := &parts[i]
		p.MemoryBytes, p.Memory, p.DiskBytes, p.Seconds = 0, nil, all[i].found.Bytes(), 0
		if m := all[i].manifest; m != nil && all[i].there {
			p.Seconds, p.MemoryBytes = m.Seconds, int64(m.Figures["memory_bytes"])
		}
		if holder := w.holder(); p.State == string(Running) && holder != nil {
			p.Reason = "by " + holder.String()
		}
	}
	return parts, nil
}

// plan gathers the facts and decides.
func (w *Workspace) plan(o Options) ([]facts, Plan, error) {
	d, err := openDigester(w.state("digests.json"))
	if err != nil {
		return nil, nil, err
	}
	all, err := w.look(d)
	if err != nil {
		return nil, nil, err
	}
	plan := decide(all, o.Stages, o.Force)
	w.predict(plan, all)
	w.remember(d)
	return all, plan, nil
}
