#!/usr/bin/env bash
# What the scripts share: words for the person who runs them, and Debian packages that are installed without harm. To be sourced.
#
# No package is ever removed for one that is wanted, no mail server replaced, no service started. What cannot be had is a note.

# Packages that bring a service.
readonly SERVICES=(postfix dovecot-lmtpd dovecot-imapd)
readonly POLICY=/usr/sbin/policy-rc.d

# What a script says at its end.
notes=()
made_policy=

say() { printf '%s\n' "$*" >&2; }
note() { notes+=("$*"); }
has() { command -v "$1" >/dev/null 2>&1; }
contains() {
    local wanted=$1 word
    shift
    for word in "$@"; do [[ $word == "$wanted" ]] && return 0; done
    return 1
}

# --- Debian packages -----------------------------------------------------------------------------------------------------------

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() {
    [[ $(id -u) == 0 ]] || { has sudo && sudo -n true 2>/dev/null; }
}

is_installed() {
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# The mail server that is installed, if it is not Postfix.
other_mail_server() {
    # shellcheck disable=SC2016  # the format is dpkg's
    dpkg-query -W -f='${db:Status-Status} ${Package} ${Provides}\n' |
        awk '$1 == "installed" && $2 != "postfix" && / mail-transport-agent/ { print $2; exit }'
}

# Whether services stay down when they are installed: by the policy that is there, or by one of ours for the time being.
services_stay_down() {
    if [[ -x $POLICY ]]; then
        local code=0
        "$POLICY" postfix start >/dev/null 2>&1 || code=$?
        [[ $code == 101 ]]
        return
    fi
    [[ ! -e $POLICY ]] || return 1
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null && made_policy=yes && as_root chmod 755 "$POLICY"
}

drop_policy() {
    if [[ -n $made_policy ]]; then
        as_root rm -f "$POLICY"
        made_policy=
    fi
}

# Installs packages in one go, but only if nothing would be removed for it.
apt_install() {
    local options=(-qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold
        -o Dpkg::Use-Pty=0)
    local plan
    plan=$(as_root apt-get -s "${options[@]}" install "$@" 2>&1) || { say "$plan"; return 1; }
    if grep -q '^Remv ' <<<"$plan"; then
        say "Other packages would be removed:"
        grep '^Remv ' <<<"$plan" >&2
        return 1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install "$@" >&2
}

# Installs those that bring a service. They stay down now and at the next boot.
install_services() {
    local package
    if ! services_stay_down; then
        note "not installed, because $POLICY would let their services start: $*"
        return
    fi
    if contains postfix "$@"; then
        as_root debconf-set-selections <<<'postfix postfix/main_mailer_type select No configuration'
    fi
    apt_install "$@" || { note "not installed: $*"; return; }
    if has systemctl; then
        for package in "$@"; do as_root systemctl disable --quiet "${package%%-*}" 2>/dev/null || true; done
    fi
}

# Installs those of the packages that are missing. A script that calls this calls drop_policy when it ends, whatever way.
install_packages() {
    local package server missing=() services=() plain=()
    if ! has apt-get; then
        note "no Debian packages here; looked for: $*"
        return
    fi
    for package in "$@"; do is_installed "$package" || missing+=("$package"); done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if ! can_be_root; then
        note "not installed, neither root nor sudo without a password: ${missing[*]}"
        return
    fi
    say "Missing packages: ${missing[*]}"
    as_root apt-get -q -o DPkg::Lock::Timeout=300 update >&2 || note "the list of packages could not be brought up to date"
    server=$(other_mail_server)
    for package in "${missing[@]}"; do
        if ! apt-cache show "$package" >/dev/null 2>&1; then
            note "not installed, there is no such package here: $package"
        elif [[ $package == postfix && -n $server ]]; then
            note "not installed, $server is the mail server here: postfix"
        elif contains "$package" "${SERVICES[@]}"; then
            services+=("$package")
        else
            plain+=("$package")
        fi
    done
    # The services first: bsd-mailx would bring a mail server of its own choice.
    [[ ${#services[@]} == 0 ]] || install_services "${services[@]}"
    install_plain "${plain[@]}"
    drop_policy
}

install_plain() {
    local package wanted=()
    for package in "$@"; do
        if [[ $package == bsd-mailx ]] && ! is_installed postfix && [[ -z $(other_mail_server) ]]; then
            note "not installed, it would bring another mail server than postfix: bsd-mailx"
        else
            wanted+=("$package")
        fi
    done
    [[ ${#wanted[@]} == 0 ]] || apt_install "${wanted[@]}" || note "not installed: ${wanted[*]}"
}
