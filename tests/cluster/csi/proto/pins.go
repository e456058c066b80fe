// Package proto pins the modules that carry the protocol files of the driver's gRPC services. Nothing is built from
// it: the blank imports keep `go mod tidy` from dropping the pins.
package proto

import (
	_ "github.com/container-storage-interface/spec/lib/go/csi"
	_ "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)
