# shellcheck shell=sh
# The boot script's arguments: `deploy.NAME=VALUE`, all of them before anything is done.

needed="url sha256 manifest serial mac seed seed_sha256 report"
known="$needed image_key log_url disk disk_serial disk_wwn disk_size mirror mirror_size data data_size erase erase_data"
known="$known raid data_mount grow host_key certificate on_failure"

url= sha256= manifest= mac= seed= seed_sha256= report= image_key= log_url=
planned_serial= # `serial` is what the machine says of itself
disk= disk_serial= disk_wwn= disk_size= mirror= mirror_size= data= data_size=
erase= erase_data= raid= data_mount= grow= host_key= certificate= on_failure=

parse() {
    for argument in "$@"; do
        case $argument in
            deploy.serial=*) planned_serial=${argument#*=} ;;
            deploy.*=*)
                name=${argument%%=*}
                name=${name#deploy.}
                case " $known " in
                    *" $name "*) value=${argument#*=} && eval "$name=\$value" ;;
                esac
                ;;
        esac
    done
    for name in $needed; do
        [ "$name" = serial ] && name=planned_serial
        eval "value=\$$name"
        [ -n "$value" ] || power_off "boot script without an argument for $name"
    done
    [ -n "$disk_serial$disk_wwn" ] || power_off "boot script without an argument for disk_serial or disk_wwn"
}
