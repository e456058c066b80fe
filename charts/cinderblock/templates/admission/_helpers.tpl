{{- define "cinderblock.admission.enabled" -}}
{{- /* A lookup finds something only when Helm talks to a cluster. Without one, the chart's kubeVersion tells. */ -}}
{{- $kind := "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- if .Values.admissionPolicies.enabled -}}
{{- if or (.Capabilities.APIVersions.Has $kind) (not (lookup "v1" "Namespace" "" "kube-system")) -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Names of images, without tag or digest: during an upgrade, the operator of the old release may still act. */ -}}
{{- define "cinderblock.admission.moverImages" -}}
{{- $images := list .Values.image.repository -}}
{{- include "cinderblock.admission.list" (concat $images .Values.admissionPolicies.moverImages) -}}
{{- end -}}

{{- /* A list of strings in CEL. */ -}}
{{- define "cinderblock.admission.list" -}}
{{- $quoted := list -}}
{{- range . }}{{ $quoted = append $quoted (printf "'%s'" .) }}{{ end -}}
[{{ join ", " $quoted }}]
{{- end -}}

{{- define "cinderblock.admission.operator" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "cinderblock.fullname" . }}
{{- end -}}

{{- /* The object before and after a write, and its metadata. */ -}}
{{- define "cinderblock.admission.variables" -}}
- name: after
  expression: "object == null ? oldObject : object"
- name: before
  expression: "oldObject == null ? object : oldObject"
- name: labels
  expression: variables.after.metadata.?labels.orValue({})
- name: oldLabels
  expression: variables.before.metadata.?labels.orValue({})
- name: annotations
  expression: variables.after.metadata.?annotations.orValue({})
- name: oldAnnotations
  expression: variables.before.metadata.?annotations.orValue({})
- name: finalizers
  expression: variables.after.metadata.?finalizers.orValue([])
- name: oldFinalizers
  expression: variables.before.metadata.?finalizers.orValue([])
- name: owners
  expression: variables.after.metadata.?ownerReferences.orValue([])
- name: oldOwners
  expression: variables.before.metadata.?ownerReferences.orValue([])
{{- end -}}

{{- define "cinderblock.admission.ownership" -}}
- name: uid
  expression: variables.oldLabels[?'cinderblock.io/owner-uid'].orValue('')
- name: isChild
  expression: >-
    variables.oldOwners.exists(o, o.apiVersion.startsWith('cinderblock.io/')
    && o.kind in ['VolumeBackup', 'VolumeRestore']
    && (o.uid == variables.uid || variables.before.metadata.name == 'cinderblock-' + o.uid))
- name: isOrphan
  expression: >-
    variables.oldOwners.size() == 0 && variables.uid != '' && variables.before.metadata.name == 'cinderblock-' + variables.uid
    && variables.oldLabels[?'app.kubernetes.io/managed-by'].orValue('') == 'cinderblock'
- name: keepsForeign
  expression: >-
    variables.oldLabels.all(key, key.startsWith('cinderblock.io/') || key == 'app.kubernetes.io/managed-by'
    || variables.labels[?key] == variables.oldLabels[?key])
    && variables.labels.all(key, key.startsWith('cinderblock.io/') || key == 'app.kubernetes.io/managed-by'
    || key in variables.oldLabels)
    && variables.oldAnnotations.all(key, key.startsWith('cinderblock.io/')
    || variables.annotations[?key] == variables.oldAnnotations[?key])
    && variables.annotations.all(key, key.startsWith('cinderblock.io/') || key in variables.oldAnnotations)
    && variables.oldFinalizers.all(name, name.startsWith('cinderblock.io/') || name in variables.finalizers)
    && variables.finalizers.all(name, name.startsWith('cinderblock.io/') || name in variables.oldFinalizers)
    && variables.oldOwners.all(o, o.apiVersion.startsWith('cinderblock.io/') || o in variables.owners)
{{- end -}}

{{- /* A binding of the policy with this name. */ -}}
{{- define "cinderblock.admission.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "cinderblock.labels" (dict "context" .context "component" "admission") | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: {{- toYaml .context.Values.admissionPolicies.validationActions | nindent 4 }}
{{- end -}}
