//go:build linux && cgo

package tui

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvidia is what reads the first NVIDIA GPU, nil where there is none. The library is looked for at run time.
func nvidia() Meter {
	if nvml.Init() != nvml.SUCCESS {
		return nil
	}
	device, code := nvml.DeviceGetHandleByIndex(0)
	if code != nvml.SUCCESS {
		return nil
	}
	name, _ := device.GetName()
	return func() (Gauge, error) {
		memory, code := device.GetMemoryInfo()
		if code != nvml.SUCCESS {
			return Gauge{}, fmt.Errorf("read the GPU's memory: %s", nvml.ErrorString(code))
		}
		g := Gauge{Name: name, Used: int64(memory.Used), Total: int64(memory.Total), Ours: -1, Load: -1, Celsius: -1, Watts: -1}
		if load, code := device.GetUtilizationRates(); code == nvml.SUCCESS {
			g.Load = int(load.Gpu)
		}
		if celsius, code := device.GetTemperature(nvml.TEMPERATURE_GPU); code == nvml.SUCCESS {
			g.Celsius = int(celsius)
		}
		if milliwatts, code := device.GetPowerUsage(); code == nvml.SUCCESS {
			g.Watts = float64(milliwatts) / 1000
		}
		return g, nil
	}
}
