# Keys and certificates. Sourced by the supervisor.
# shellcheck shell=bash disable=SC2154

# Longer than any test, shorter than anybody would keep a cluster.
readonly valid_days=30

make_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$state/pki/$1.key"; }

make_ca() {
    make_key ca
    openssl req -x509 -new -key "$state/pki/ca.key" -subj /CN=cluster-ca -days $valid_days -out "$state/pki/ca.crt" \
        -addext keyUsage=critical,keyCertSign,digitalSignature,cRLSign
}

# make_certificate NAME SUBJECT [ALTERNATIVE_NAMES]
make_certificate() {
    local file=$state/pki/$1
    make_key "$1"
    openssl req -new -key "$file.key" -subj "$2" -out "$file.csr"
    printf 'extendedKeyUsage=clientAuth,serverAuth\n%s' "${3:+subjectAltName=$3}" >"$file.ext"
    openssl x509 -req -in "$file.csr" -CA "$state/pki/ca.crt" -CAkey "$state/pki/ca.key" -CAcreateserial \
        -days $valid_days -extfile "$file.ext" -out "$file.crt"
    rm "$file.csr" "$file.ext"
}

# make_kubeconfig NAME SERVER FILE: for the certificate NAME, with everything inside the file.
make_kubeconfig() {
    local user
    user="{client-certificate-data: $(base64 --wrap=0 "$state/pki/$1.crt"), client-key-data: $(base64 --wrap=0 "$state/pki/$1.key")}"
    cat >"$3.new" <<YAML
apiVersion: v1
kind: Config
clusters:
- {name: $name, cluster: {server: "$2", certificate-authority-data: $(base64 --wrap=0 "$state/pki/ca.crt")}}
users:
- {name: $1, user: $user}
contexts:
- {name: $name, context: {cluster: $name, user: $1}}
current-context: $name
YAML
    mv "$3.new" "$3"
}

make_pki() {
    local n names
    mkdir -m 700 "$state/pki"
    names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
    names+=,DNS:localhost,IP:127.0.0.1,IP:$control_address,IP:$control_address6,IP:$kubernetes_service
    make_ca
    make_key service-accounts
    make_certificate apiserver /CN=kube-apiserver "$names"
    make_certificate apiserver-to-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
    make_certificate front-proxy /CN=front-proxy
    make_certificate admin /O=system:masters/CN=admin
    make_certificate controller-manager /CN=system:kube-controller-manager
    make_certificate scheduler /CN=system:kube-scheduler
    make_certificate kube-proxy /CN=system:kube-proxy
    for ((n = 1; n <= nodes; n++)); do
        make_certificate "$(node_name "$n")" "/O=system:nodes/CN=system:node:$(node_name "$n")" \
            "DNS:$(node_name "$n"),IP:$(node_address "$n"),IP:$(node_address6 "$n")"
    done
}
